"""The result of a measurement, for each image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_tin.attacks.base import FIXED_BUDGET
from robustbench_tin.attacks.engine.stop_on_success import StageReport
from robustbench_tin.benchmarks.codes.status import Status
from robustbench_tin.benchmarks.runs.adversarial_images import AdversarialImages
from robustbench_tin.benchmarks.statistics.median import Median


@dataclass(frozen=True)
class LadderStep:
    """Additional results of a measurement that is a rung of a ladder of budgets.

    Attributes:
        carried: number of images that count as adversarial because they were adversarial at a smaller eps.
        sampled: images that every rung attacks again, bool ``(N,)``.
        alone: sampled images that are right under the attack at this eps alone, bool ``(N,)``.
        median: median of the smallest eps at which an image is adversarial, over the images that are right
            when clean; infinite if it is above this eps. None if no image is right when clean.
    """

    carried: int
    sampled: npt.NDArray[np.bool_]
    alone: npt.NDArray[np.bool_]
    median: Median | None


@dataclass(frozen=True)
class Measurement:
    """One measurement with its results per image.

    Attributes:
        eps: the budget in units of the pixel range; 0 for the clean measurement.
        top1: whether the true label is the top 1, bool ``(N,)``; None if the measurement failed or has
            another criterion.
        top5: whether the true label is in the top 5, bool ``(N,)``; None as for ``top1``.
        status: whether the measurement succeeded, and if not, why.
        seconds: wall-clock time.
        forward_passes: forward passes, summed over the images.
        backward_passes: backward passes, summed over the images.
        mode: ``fixed budget``, or ``stop on success`` and the criterion.
        search: precision and variant of the model that the attack searched with. If the variant turned out
            to be wrong, the attack was repeated with the model itself, which is then named here.
        remarks: remarks for the reader, for example that a variant turned out to be wrong.
        stages: a report for each stage of an attack that stops on success, in the final search.
        disagreements: number of times that the variant misclassified an image and the model did not,
            including searches with a variant that turned out to be wrong.
        unverified: number of images with such a disagreement in the final search that are not adversarial in
            the end; None for a fixed budget.
        predicted: class with the largest logit, int32 ``(N,)``; of the adversarial image, or of the clean
            image if there is no adversarial one. None if it is not known.
        ladder: additional results if the measurement is a rung of a ladder; else None.
        adversarial: the first successes, in their order; None if none are kept.
    """

    eps: float
    top1: npt.NDArray[np.bool_] | None
    top5: npt.NDArray[np.bool_] | None
    status: Status
    seconds: float
    forward_passes: int
    backward_passes: int
    mode: str = FIXED_BUDGET
    search: str = "float32"
    remarks: tuple[str, ...] = ()
    stages: tuple[StageReport, ...] = ()
    disagreements: int = 0
    unverified: int | None = None
    predicted: npt.NDArray[np.int32] | None = None
    ladder: LadderStep | None = None
    adversarial: AdversarialImages | None = None

    def hits(self, k: int) -> npt.NDArray[np.bool_] | None:
        """Whether the true label is in the top ``k``, bool ``(N,)``; None if that was not measured.

        Args:
            k: 1 or 5.
        """
        return self.top5 if k == 5 else self.top1

    @property
    def late_successes(self) -> int | None:
        """Number of successes in the last tenth of the last stage's budget; None for a fixed budget."""
        return self.stages[-1].late_successes if self.stages else None
