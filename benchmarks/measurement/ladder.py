"""Turn results at single budgets into results of a ladder: a success also counts at all larger budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from robustbench_tin.attacks.base import Attack
from robustbench_tin.benchmarks.measurement.first_successes import Keep, carried
from robustbench_tin.benchmarks.measurement.results import LadderStep, Measurement
from robustbench_tin.benchmarks.runs.adversarial_images import AdversarialImages
from robustbench_tin.benchmarks.statistics.median import median

MODE = "successes carried up the eps"
"""Added to the attack's mode if the measurement is a rung of a ladder."""

Classes = npt.NDArray[np.int32]
Hits = npt.NDArray[np.bool_]


def climbed(
    measures: Sequence[Measurement],
    right: Hits,
    attack: Attack,
    *,
    sample: Hits | None = None,
    predicted: Classes | None = None,
    keep: Keep | None = None,
) -> list[Measurement]:
    """Carry the successes of each rung to the rungs above it.

    Args:
        measures: one for each rung, from the smallest eps, with a result for each attacked image.
        right: images that are right when clean, bool ``(N,)``.
        attack: the attack of the measurements.
        sample: images that every rung attacked, bool ``(N,)``; None if every rung attacked all images.
        predicted: predicted classes of the clean images, int32 ``(N,)``; None if they are not known.
        keep: the successes to keep; None for none.

    Returns:
        The measurements of the ladder; failed rungs keep their status.
    """
    k = attack.goal.k
    sample = np.ones_like(right) if sample is None else sample
    left = right
    smallest = np.where(right, math.inf, 0.0)
    kept: AdversarialImages | None = None
    steps = []
    for each in measures:
        alone = each.hits(k)
        if alone is None:
            steps.append(replace(each, mode=f"{each.mode}, {MODE}"))
            continue
        fallen = int((right & ~left).sum())
        if predicted is not None and each.predicted is not None:
            # An image that is adversarial at a lower rung keeps its predicted class of that rung.
            predicted = np.where(left, each.predicted, predicted)
        if keep is not None and each.adversarial is not None:
            kept = each.adversarial if kept is None else carried(kept, each.adversarial, keep)
        smallest[left & ~alone] = each.eps
        left = left & alone
        step = LadderStep(fallen, sample, alone & sample, median(smallest[right]))
        steps.append(
            replace(
                each,
                top1=left if k == 1 else None,
                top5=left if k == 5 else None,
                mode=f"{each.mode}, {MODE}",
                predicted=predicted,
                ladder=step,
                adversarial=kept,
            )
        )
    return steps
