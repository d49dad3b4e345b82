"""The interval of an accuracy that was measured on several trainings and on a sample of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

_CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)


def wilson(rate: float, images: int) -> tuple[float, float]:
    """Wilson's interval at 95 % for an accuracy on this number of images (Wilson, 1927).

    Args:
        rate: in [0, 1]; a mean over seeds need not be a count of images.
        images: 1 or more.

    Returns:
        Both ends, in [0, 1].

    >>> [round(end, 3) for end in wilson(0.5, 100)]
    [0.404, 0.596]
    """
    scale = 1 + _Z**2 / images
    centre = (rate + _Z**2 / (2 * images)) / scale
    reach = _Z / scale * math.sqrt(rate * (1 - rate) / images + _Z**2 / (4 * images**2))
    return max(0.0, min(rate, centre - reach)), min(1.0, max(rate, centre + reach))


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

    quantile = float(stdtrit(len(rates) - 1, (1 + _CONFIDENCE) / 2))
    reach = quantile * stdev(rates) / math.sqrt(len(rates))
    return max(0.0, mean - math.hypot(mean - low, reach)), min(1.0, mean + math.hypot(high - mean, reach))
