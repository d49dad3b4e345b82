"""Attacks of the probe: a short PGD, a black-box search on what it leaves, a budget that breaks anything."""

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
# Images of the black-box search: those nearest to a mistake. Few images and many queries, since a short
# search breaks none of a robust network.
_SEARCHED = 12
_PROBED = 64
_HUGE = 16
_HUGE_STEPS = 8
_TOP1 = Criterion(1)


@dataclass(frozen=True)
class Witness:
    """What queries alone broke of images that a PGD did not.

    Attributes:
        images: number of images that PGD left right and queries were spent on.
        successes: images of them that the queries broke.
    """

    images: int
    successes: int


@dataclass(frozen=True)
class Huge:
    """What a budget leaves that no image can withstand.

    Attributes:
        eps: with which every image can be made mid-grey.
        left: which images were left right at it, bool ``(h,)``, all of them right when clean.
    """

    eps: float
    left: npt.NDArray[np.bool_]


class Trials:
    """Attacks on a model in float32, without a variant of it.

    Args:
        subject: the model.
        sample: the probe's images.
        logits: of these images, float32 ``(n, C)`` on their device.
        threat: norm and eps.
        protocol: of the cell's attacks.
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
        """A PGD on margins, and a black-box search on some of what it leaves.

        Returns:
            Which of the first images PGD left right, bool ``(m,)`` on the CPU; how many it broke in its last
            tenth; the search.
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
        """The same for a frozen random model, on one batch that no image leaves, so each keeps its numbers.

        Args:
            right: images right as they are, bool ``(n,)``.
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
        """PGD on margins from the image itself with a budget that no image can withstand."""
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
        """Numbers of the kept images that are nearest to a mistake, at most so many as are searched."""
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
        """Until broken, in float32, with the model itself."""
        sample = self._sample
        batches = ImageBatches(sample.images[rows], sample.labels[rows], sample.size, sample.device)
        logits = self._logits[rows.to(self._logits.device)]
        finish = to_8bit if self._conditions.eight_bit else None
        return EarlyStopRunner(
            self._oracle, batches, threat, _TOP1, logits, seed=self._conditions.seed, finish=finish
        ).attack(attack)


@dataclass(frozen=True, kw_only=True)
class _MarginPGD(PGD):
    """PGD on the margin between the label and its strongest rival, which no scale of the logits hides."""

    name = "probe"

    def objective(self, logits: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
        return criterion.margin(logits, labels)
