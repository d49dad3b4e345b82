"""What a measurement found out, image by image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_tin.attacks.base import FIXED_BUDGET
from robustbench_tin.attacks.engine.stop_on_success import StageReport
from robustbench_tin.benchmarks.codes.status import Status
from robustbench_tin.benchmarks.statistics.median import Median


@dataclass(frozen=True)
class LadderStep:
    """What is known of a measurement on a ladder of budgets beside its results.

    Attributes:
        carried: images that count as adversarial because they were so at a smaller eps.
        sampled: images that every rung attacks anew, bool ``(N,)``.
        alone: of these, the images that are right under the attack at this eps alone, bool ``(N,)``.
        median: of the smallest eps at which an image is adversarial, over the images that are right when
            clean; infinite while it is above this eps. None if no image is right when clean.
    """

    carried: int
    sampled: npt.NDArray[np.bool_]
    alone: npt.NDArray[np.bool_]
    median: Median | None


@dataclass(frozen=True)
class Measurement:
    """One measure, image by image.

    Attributes:
        eps: its budget; 0 for the clean measure.
        top1: was the true label the top 1, bool ``(N,)``; None if the measure failed or its criterion was
            another.
        top5: was it in the top 5, likewise.
        status: whether it was taken, and why not.
        seconds: wall-clock time.
        forward_passes: summed over the images.
        backward_passes: summed over the images.
        mode: ``fixed budget``, or ``stop on success`` and the criterion.
        search: precision and variant of the model that was searched with; after a variant was found to be
            wrong, of the model itself, which then searched again.
        remarks: what a reader must know of this figure; that a variant was found to be wrong, for instance.
        stages: what each stage of an attack that stops on success did, in the search that the figure rests
            on.
        disagreements: times that the variant searched with saw an image broken and the model did not, those
            with a variant found wrong since among them.
        unverified: images that this happened to in the search that the figure rests on and that were not
            broken in the end; None under a fixed budget.
        predicted: class with the largest logit, int32 ``(N,)``: of the adversarial image, of the clean image
            without one; None if it is not known.
        ladder: its place on a ladder of budgets; None if it stands for itself.
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

    def hits(self, k: int) -> npt.NDArray[np.bool_] | None:
        """Was the true label in the top ``k``, 1 or 5, bool ``(N,)``; None if that was not measured."""
        return self.top5 if k == 5 else self.top1

    @property
    def late_successes(self) -> int | None:
        """Images that the last stage broke in the last tenth of its budget; None under a fixed budget."""
        return self.stages[-1].late_successes if self.stages else None
