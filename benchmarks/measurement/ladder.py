"""From results at each budget to results of a ladder: successes are carried to the larger budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from robustbench_tin.attacks.base import Attack
from robustbench_tin.benchmarks.measurement.results import LadderStep, Measurement
from robustbench_tin.benchmarks.statistics.median import median

MODE = "successes carried up the eps"
"""Said of a measurement that stands on a ladder, behind the mode of its attack."""

Classes = npt.NDArray[np.int32]
Hits = npt.NDArray[np.bool_]


def climbed(
    measures: Sequence[Measurement],
    right: Hits,
    attack: Attack,
    *,
    sample: Hits | None = None,
    predicted: Classes | None = None,
) -> list[Measurement]:
    """The measurements of a ladder.

    Args:
        measures: one a rung, from the smallest eps, with a result for each image that it attacked.
        right: images that are right when clean, bool ``(N,)``.
        attack: of the measurements.
        sample: images that every rung attacked; None: all of them.
        predicted: classes of the clean images, int32 ``(N,)``; None if they are not known.
    """
    k = attack.goal.k
    sample = np.ones_like(right) if sample is None else sample
    left = right
    smallest = np.where(right, math.inf, 0.0)
    steps = []
    for each in measures:
        alone = each.hits(k)
        if alone is None:
            steps.append(replace(each, mode=f"{each.mode}, {MODE}"))
            continue
        carried = int((right & ~left).sum())
        if predicted is not None and each.predicted is not None:
            # An image that fell below keeps the class that it was taken for there.
            predicted = np.where(left, each.predicted, predicted)
        smallest[left & ~alone] = each.eps
        left = left & alone
        step = LadderStep(carried, sample, alone & sample, median(smallest[right]))
        steps.append(
            replace(
                each,
                top1=left if k == 1 else None,
                top5=left if k == 5 else None,
                mode=f"{each.mode}, {MODE}",
                predicted=predicted,
                ladder=step,
            )
        )
    return steps
