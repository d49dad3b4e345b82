"""The interval of an accuracy that was measured on several trainings and on a sample of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from robustbench_tin.benchmarks.statistics.wilson import CONFIDENCE, wilson


def interval_over_seeds(rates: Sequence[float], images: int) -> tuple[float, float]:
    """An interval at 95 % for the mean accuracy of such trainings on such images.

    Two errors add up: another set of seeds would give another mean, and so would another sample of images.
    For the seeds it takes Student's t interval of the mean (Student, 1908), for the images Wilson's interval
    at the mean, and joins their lengths by the method of variance estimates recovery (Zou and Donner, 2008,
    Statistics in Medicine 27): an end's distance is the root of the sum of squares. All seeds see the same
    images, so that more seeds do not shorten the second part. The interval errs on the long side: a part of
    the images' error is in the spread over seeds, too.

    Args:
        rates: the accuracies of one or more seeds, in [0, 1]; of one seed, Wilson's interval is left.
        images: that each was measured on.

    Returns:
        Both ends, in [0, 1].
    """
    mean = fmean(rates)
    low, high = wilson(mean, images)
    if len(rates) == 1:
        return low, high
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(rates) - 1, (1 + CONFIDENCE) / 2))
    reach = quantile * stdev(rates) / math.sqrt(len(rates))
    return max(0.0, mean - math.hypot(mean - low, reach)), min(1.0, mean + math.hypot(high - mean, reach))
