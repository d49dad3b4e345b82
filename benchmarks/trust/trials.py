"""Attacks of the probe: a short PGD, a black-box search, and a PGD with a budget that always suffices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.attacks.engine.quantize import to_8bit
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopResult, EarlyStopRunner
from robustbench_tin.attacks.pgd import PGD
from robustbench_tin.attacks.square import Square
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.trust.frozen import ProbedModel
from robustbench_tin.threat import ThreatModel

PROBE_STEPS = 10
PROBE_QUERIES = 90
# Number of images for the black-box search: those with the smallest margin. The probe uses few images and
# many queries, because a short search has no success on a robust network.
_SEARCHED = 12
_PROBED = 64
_HUGE = 16
_HUGE_STEPS = 8
_TOP1 = Criterion(1)


@dataclass(frozen=True)
class Witness:
    """The result of a black-box search on images on which a PGD failed.

    Attributes:
        images: number of images that were searched.
        successes: number of these images that the black-box search made adversarial.
    """

    images: int
    successes: int


@dataclass(frozen=True)
class Huge:
    """The result of an attack with a budget that no model can withstand.

    Attributes:
        eps: a budget large enough to turn every image mid-grey, in units of the pixel range.
        left: whether each image, right when clean, is still right, bool ``(h,)``.
    """

    eps: float
    left: npt.NDArray[np.bool_]


class Trials:
    """Attacks on the model itself in float32, without a variant.

    Args:
        subject: the model.
        sample: the probe's images.
        logits: logits of these images, float32 ``(n, C)`` on their device.
        threat: norm and eps.
        protocol: the protocol of the cell's attacks; seed and rounding are used.
    """

    def __init__(
        self,
        subject: ProbedModel,
        sample: ImageBatches,
        logits: Tensor,
        threat: ThreatModel,
        protocol: AttackProtocol,
    ) -> None:
        self._oracle = subject.attacked
        self._sample = sample
        self._logits = logits
        self._threat = threat
        self._conditions = protocol

    def stop_on_success(self) -> tuple[Tensor, int, Witness]:
        """Run a PGD on margins, and a black-box search on some images on which the PGD fails.

        Returns:
            Which of the first ``m`` images PGD left right, bool ``(m,)`` on the CPU; the number of PGD's
            successes in the last tenth of its budget; the result of the search.
        """
        found = self._attack(
            _MarginPGD(steps=PROBE_STEPS), torch.arange(min(_PROBED, len(self._sample))), self._threat
        )
        late_successes = sum(stage.late_successes for stage in found.stages)
        rows = self._nearest(~found.success)
        successes = 0
        if len(rows):
            successes = int(self._attack(Square(queries=PROBE_QUERIES), rows, self._threat).success.sum())
        return ~found.success, late_successes, Witness(len(rows), successes)

    def on_one_batch(self, right: Tensor) -> Witness:
        """Run PGD and the black-box search on a frozen random model.

        All images stay in one batch during the attacks, so that each image keeps its random numbers.

        Args:
            right: images that are right when clean, bool ``(n,)``.
        """
        rows = self._nearest(right.cpu())
        images, labels = self._sample.rows(rows)
        if not len(rows):
            return Witness(0, 0)
        alive = ~self._broken(images, labels)
        left = ~self._broken(self._moved(_MarginPGD(steps=PROBE_STEPS), images, labels), labels) & alive
        square = self._moved(Square(queries=PROBE_QUERIES, criterion=None), images, labels)
        return Witness(int(left.sum()), int((left & self._broken(square, labels)).sum()))

    def huge(self, right: Tensor) -> Huge:
        """Run PGD on margins, without random start, with a budget that no model can withstand.

        Args:
            right: images that are right when clean, bool ``(n,)``.
        """
        rows = right.nonzero().squeeze(1).cpu()[:_HUGE]
        images = self._sample.rows(rows)[0]
        eps = 0.5
        if self._threat.norm == "l2" and len(images):
            eps = float((images - 0.5).flatten(1).norm(dim=1).amax())
        attack = _MarginPGD(steps=_HUGE_STEPS, random_start=False)
        success = torch.zeros(len(rows), dtype=torch.bool)
        if len(rows):
            success = self._attack(attack, rows, ThreatModel(self._threat.norm, eps)).success
        return Huge(eps, (~success).numpy())

    def _nearest(self, kept: Tensor) -> Tensor:
        """Indices of the kept images with the smallest margin, ascending; at most :data:`_SEARCHED`."""
        count = len(kept)
        margins = _TOP1.margin(self._logits[:count], self._sample.all_labels()[:count]).cpu()
        order = margins.masked_fill(~kept, -torch.inf).argsort(descending=True)
        return order[: min(_SEARCHED, int(kept.sum()))].sort().values

    def _broken(self, images: Tensor, labels: Tensor) -> Tensor:
        return _TOP1.success(self._oracle.logits(images), labels)

    def _moved(self, attack: Attack, images: Tensor, labels: Tensor) -> Tensor:
        threat, seed = self._threat, self._conditions.seed
        return perturb_images(
            attack, self._oracle, images, labels, [threat.eps], norm=threat.norm, seed=seed
        )[0]

    def _attack(self, attack: Attack, rows: Tensor, threat: ThreatModel) -> EarlyStopResult:
        """Attack images, stopping on success, with the model itself in float32."""
        sample = self._sample
        batches = ImageBatches(sample.images[rows], sample.labels[rows], sample.size, sample.device)
        logits = self._logits[rows.to(self._logits.device)]
        finish = to_8bit if self._conditions.eight_bit else None
        return EarlyStopRunner(
            self._oracle, batches, threat, _TOP1, logits, seed=self._conditions.seed, finish=finish
        ).attack(attack)


@dataclass(frozen=True, kw_only=True)
class _MarginPGD(PGD):
    """PGD on the margin between the label and its strongest rival; the logits' scale does not matter."""

    name = "probe"

    def objective(self, logits: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
        return criterion.margin(logits, labels)
