"""The interval of an accuracy measured on several trainings and on a sample of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from robustbench_tin.benchmarks.statistics.wilson import CONFIDENCE, wilson


def interval_over_seeds(rates: Sequence[float], images: int) -> tuple[float, float]:
    """A 95 % interval for the mean accuracy of such trainings on such images.

    Two errors add up: another set of seeds would give another mean, and so would another sample of images.
    The part of the seeds is Student's t interval of the mean (Student, 1908); the part of the images is
    Wilson's interval at the mean. The method of variance estimates recovery joins their lengths (Zou and
    Donner, 2008, Statistics in Medicine 27): the distance to an end is the root of the sum of squares. All
    seeds are measured on the same images, so more seeds do not shorten the second part. The interval is
    rather too long, because the spread over seeds already contains some of the images' error.

    Args:
        rates: the accuracies of one or more seeds, in [0, 1]; for one seed the result is Wilson's interval.
        images: number of images that each was measured on.

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
