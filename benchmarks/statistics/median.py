"""The median of censored values: some are only known to be larger than all others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_tin.benchmarks.statistics.wilson import CONFIDENCE


@dataclass(frozen=True)
class Median:
    """A median and its 95 % interval; the ends may be infinite.

    Attributes:
        value: the median: at least half of the values are at most this.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float


def median(values: npt.NDArray[np.float64]) -> Median | None:
    """The median of some values, with the exact interval from order statistics (Conover, 1999, 3.2).

    Args:
        values: ``(N,)``, 0 or more; a censored value, known only to be above all others, is infinite.

    Returns:
        The median, or None if there are no values. With fewer than six values, the interval reaches from 0
        to infinity.

    >>> median(np.array([1.0, 1, 2, 2, 2, 4, 4, np.inf]))
    Median(value=2.0, low=1.0, high=inf)
    """
    from scipy.stats import quantile_test

    if len(values) == 0:
        return None
    known = quantile_test(values, q=0, p=0.5).confidence_interval(CONFIDENCE)
    low, high = float(known.low), float(known.high)
    return Median(
        float(np.quantile(values, 0.5, method="inverted_cdf")),
        0.0 if math.isnan(low) else low,
        math.inf if math.isnan(high) else high,
    )
