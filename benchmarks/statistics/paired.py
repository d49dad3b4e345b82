"""Two measurements of the same images, image by image.

Only images whose result differs tell anything, and by chance each is as likely lost as won: McNemar's exact
test (McNemar, 1947, "Note on the sampling error of the difference between correlated proportions or
percentages", Psychometrika 12).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_tin.benchmarks.statistics.chances import Chances
from robustbench_tin.benchmarks.statistics.wilson import wilson


@dataclass(frozen=True)
class Changes:
    """The images whose outcome changed between two measures of the same images.

    Attributes:
        lost: right before, wrong now.
        won: wrong before, right now.
        images: all of them.
    """

    lost: int
    won: int
    images: int

    @classmethod
    def between(cls, before: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_]) -> Changes:
        """Count them; both bool ``(N,)``, image ``i`` in row ``i`` of each."""
        return cls(int((before & ~now).sum()), int((~before & now).sum()), len(before))

    @property
    def share(self) -> float:
        """Part of all images that changed."""
        return (self.lost + self.won) / self.images

    def chances(self) -> Chances:
        """McNemar's exact test, one-sided each way.

        >>> Changes(lost=9, won=1, images=100).chances().of_drop  # 11 of 1,024 ways
        0.0107421875
        """
        from scipy.stats import binomtest

        changed = self.lost + self.won
        if changed == 0:
            return Chances(1.0, 1.0)
        return Chances(
            float(binomtest(self.lost, changed, alternative="greater").pvalue),
            float(binomtest(self.won, changed, alternative="greater").pvalue),
        )


def image_variance(before: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_]) -> float:
    """Variance of a drop in accuracy by the choice of images, if both sides were measured on the same.

    Args:
        before: outcomes of one training, bool ``(N,)``.
        now: those of one training or more, bool ``(K, N)``; their mean is compared.

    Returns:
        In squared units of accuracy; never below that of half an image that changed.

    >>> before = np.array([True, True, False, False])
    >>> image_variance(before, np.array([[True, False, False, False]]))  # 3/16, by four images
    0.046875
    """
    changes = before.astype(float) - now.mean(axis=0)
    return max(float(changes.var()), 0.5 / len(before)) / len(before)


def difference_interval(before: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """An interval at 95 % for the difference of two accuracies on the same images.

    Wilson's interval of each accuracy, joined with the correlation of their results (Newcombe, 1998,
    "Improved confidence intervals for the difference between binomial proportions based on paired data",
    Statistics in Medicine 17, method 10).

    Args:
        before: was each image right in the one measurement, bool ``(N,)``.
        now: was it right in the other, likewise.

    Returns:
        Both ends of ``now`` less ``before``, in [-1, 1].

    >>> before = np.repeat([True, True, False], [36, 2, 12])
    >>> now = np.repeat([True, False, True], [36, 2, 12])
    >>> [round(end, 4) for end in difference_interval(before, now)]
    [0.0569, 0.3404]
    """
    images = len(before)
    first, second = float(before.mean()), float(now.mean())
    (low1, high1), (low2, high2) = wilson(first, images), wilson(second, images)
    shared = _correlation(before, now)
    below = _reach(second - low2, high1 - first, shared)
    above = _reach(high2 - second, first - low1, shared)
    return max(-1.0, second - first - below), min(1.0, second - first + above)


def _reach(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))


def _correlation(before: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_]) -> float:
    """Newcombe's: the coefficient phi, moved towards 0 by half an image if it is positive."""
    both, neither = int((before & now).sum()), int((~before & ~now).sum())
    changes = Changes.between(before, now)
    margins = [int(part.sum()) for part in (before, ~before, now, ~now)]
    if 0 in margins:
        return 0.0
    excess = float(both * neither - changes.lost * changes.won)
    if excess > 0:
        excess = max(0.0, excess - len(before) / 2)
    return excess / math.sqrt(math.prod(margins))
