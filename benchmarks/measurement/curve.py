"""Robust accuracy over a ladder of budgets: each rung attacks only the images that survived the lower rungs.

An image that is adversarial at a smaller eps is also adversarial at a larger eps, because it lies in the
larger ball too. So the accuracy of a rung is at most the accuracy of the rungs below it.

That would hide an attack that gets weaker as eps grows. So every rung attacks a random sample of the images
again, and stores these results separately; the trust check for rising accuracy uses only them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.spot_checks import OnImages
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.clean import hits_of
from robustbench_tin.benchmarks.measurement.first_successes import FirstSuccesses, Keep
from robustbench_tin.benchmarks.measurement.fixed_budget import measure_fixed_budget, shares_gradients
from robustbench_tin.benchmarks.measurement.ladder import climbed
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.measurement.until_success import measure_until_success
from robustbench_tin.benchmarks.runs.adversarial_images import AdversarialImages
from robustbench_tin.metrics import predictions

# Number of images that every rung attacks again: over all rungs a quarter of the images, so that they cost at
# most a quarter of a rung. The limits are the fewest that the trust check can use and the most that it needs.
_SAMPLE_PART, _LEAST_SAMPLE, _MOST_SAMPLE = 0.25, 16, 100


def measure_curve(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: Sequence[float],
    protocol: AttackProtocol,
    clean_logits: Tensor,
    on_images: OnImages | None = None,
    *,
    keep: Keep | None = None,
) -> list[Measurement]:
    """Measure a ladder of budgets, one measurement for each rung.

    Only the attack's own criterion is measured: top-1 for a fixed budget. If the gradients of an attack serve
    all budgets at once, it attacks all images at all rungs.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: the images.
        attack: the attack.
        eps: the rungs, positive and ascending, in units of the pixel range.
        protocol: norm, seed and search.
        clean_logits: logits of the clean measurement, float32 ``(N, C)``.
        on_images: called with the number of newly finished images.
        keep: the successes to keep; None for none.

    Returns:
        The measurements in the order of ``eps``.
    """
    right = hits_of(clean_logits, batches.all_labels(), attack.goal.k)
    keep = None if keep is None else keep.knowing(right)
    if shares_gradients(attack):
        found, _ = measure_fixed_budget(model, batches, attack, eps, protocol, on_images, keep=keep)
        clean = predictions(clean_logits).cpu().numpy()
        return climbed(found, right, attack, predicted=clean, keep=keep)
    ladder = _Ladder(model, batches, attack, protocol, clean_logits, right, keep)
    measures = ladder.climb(eps, on_images)
    if any(protocol.variants.misled(each.search) for each in measures):
        return ladder.climb(eps, None)
    return measures


@dataclass(frozen=True)
class _Ladder:
    """A model, images and an attack to measure over a ladder.

    Attributes:
        model: maps float32 pixels in [0, 1] to logits.
        batches: the images.
        attack: the attack.
        protocol: norm, seed and search.
        clean_logits: float32 ``(N, C)``.
        right: images that are right when clean, bool ``(N,)``.
        keep: which successes are kept; None: none.
    """

    model: nn.Module
    batches: ImageBatches
    attack: Attack
    protocol: AttackProtocol
    clean_logits: Tensor
    right: npt.NDArray[np.bool_]
    keep: Keep | None = None

    def climb(self, eps: Sequence[float], on_images: OnImages | None) -> list[Measurement]:
        """Measure one rung after the other."""
        sample = self.right & sampled(len(self.right), len(eps), self.protocol.seed)
        left, measures, told = self.right, [], 0
        for number, value in enumerate(eps, 1):
            found = self._rung(value, left | sample)
            measures.append(found)
            top = found.hits(self.attack.goal.k)
            left = left if top is None else left & top
            done = number * len(self.batches) // len(eps)
            if on_images is not None:
                on_images(done - told)
            told = done
        clean = predictions(self.clean_logits).cpu().numpy()
        return climbed(measures, self.right, self.attack, sample=sample, predicted=clean, keep=self.keep)

    def _rung(self, eps: float, attacked: npt.NDArray[np.bool_]) -> Measurement:
        """Measure one rung, with a result for each image; images that it does not attack count as right."""
        k = self.attack.goal.k
        rows = torch.from_numpy(attacked.nonzero()[0])
        if len(rows) == 0:
            nothing = np.ones_like(attacked)
            shape = self.batches.images.shape[1:]
            kept = None if self.keep is None else FirstSuccesses(self.keep).found(shape)
            return Measurement(eps, nothing, nothing, OK, 0.0, 0, 0, mode=self.attack.mode, adversarial=kept)
        found = self._measured(self.batches.subset(rows), rows, eps)
        hits = found.hits(k)
        if hits is None:
            return found
        whole = np.ones_like(attacked)
        whole[attacked] = hits
        return replace(
            found,
            top1=whole if k == 1 else None,
            top5=whole if k == 5 else None,
            predicted=self._whole(found.predicted, attacked),
            adversarial=_numbered(found.adversarial, rows),
        )

    def _whole(
        self, predicted: npt.NDArray[np.int32] | None, attacked: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int32] | None:
        """The predicted classes of all images; images that were not attacked have 0, which is never read."""
        if predicted is None:
            return None
        whole = np.zeros(len(attacked), dtype=np.int32)
        whole[attacked] = predicted
        return whole

    def _measured(self, batches: ImageBatches, rows: Tensor, eps: float) -> Measurement:
        attack, protocol = self.attack, self.protocol
        keep = None if self.keep is None else self.keep.subset(rows)
        if attack.criterion is None:
            found, _ = measure_fixed_budget(self.model, batches, attack, [eps], protocol, None, keep=keep)
            return found[0]
        logits = self.clean_logits[rows.to(self.clean_logits.device)]
        return measure_until_success(self.model, batches, attack, eps, protocol, logits, None, keep)


def _numbered(found: AdversarialImages | None, rows: Tensor) -> AdversarialImages | None:
    """Images of a part of all, with their numbers among all."""
    return None if found is None else replace(found, rows=rows.numpy()[found.rows])


def sampled(images: int, rungs: int, seed: int) -> npt.NDArray[np.bool_]:
    """The random sample of images that every rung attacks again, bool ``(images,)``.

    Args:
        images: number of all images.
        rungs: number of rungs, 1 or more.
        seed: seed of the measurement.
    """
    count = min(max(int(_SAMPLE_PART * images / rungs), _LEAST_SAMPLE), _MOST_SAMPLE)
    chosen = np.zeros(images, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(images)[:count]] = True
    return chosen
