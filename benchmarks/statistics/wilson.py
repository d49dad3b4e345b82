"""Wilson's interval for a rate."""

from __future__ import annotations

import math
from statistics import NormalDist

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def wilson(rate: float, images: int) -> tuple[float, float]:
    """Wilson's interval at 95 % for an accuracy (Wilson, 1927).

    Args:
        rate: the accuracy, in [0, 1]; it may be a mean over seeds.
        images: number of images, 1 or more.

    Returns:
        Both ends of the interval, in [0, 1].

    >>> [round(end, 3) for end in wilson(0.5, 100)]
    [0.404, 0.596]
    """
    scale = 1 + _Z**2 / images
    centre = (rate + _Z**2 / (2 * images)) / scale
    reach = _Z / scale * math.sqrt(rate * (1 - rate) / images + _Z**2 / (4 * images**2))
    return max(0.0, min(rate, centre - reach)), min(1.0, max(rate, centre + reach))
