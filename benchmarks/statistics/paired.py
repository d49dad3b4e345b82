"""Compare two measurements of the same images, image by image.

Only the images whose result differs carry information. By chance alone, each of them is as likely lost as
won. This is McNemar's exact test (McNemar, 1947, "Note on the sampling error of the difference between
correlated proportions or percentages", Psychometrika 12).
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
    """The images whose result changed between two measurements of the same images.

    Attributes:
        lost: number of images that were right before and are wrong now.
        won: number of images that were wrong before and are right now.
        images: number of all measured images.
    """

    lost: int
    won: int
    images: int

    @classmethod
    def between(cls, before: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_]) -> Changes:
        """Count the changed images.

        Args:
            before: was each image right before, bool ``(N,)``.
            now: is each image right now, bool ``(N,)``; the same images in the same order.
        """
        return cls(int((before & ~now).sum()), int((~before & now).sum()), len(before))

    @property
    def share(self) -> float:
        """Fraction of all images that changed, in [0, 1]."""
        return (self.lost + self.won) / self.images

    def chances(self) -> Chances:
        """McNemar's exact test, one-sided in each direction.

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
    """Variance of an accuracy drop that comes from the choice of images, if both sides share the images.

    Args:
        before: results per image of one training, bool ``(N,)``.
        now: results per image of one or more trainings, bool ``(K, N)``; their mean is compared.

    Returns:
        The variance in squared units of accuracy. It is at least the variance of half a changed image.

    >>> before = np.array([True, True, False, False])
    >>> image_variance(before, np.array([[True, False, False, False]]))  # 3/16, by four images
    0.046875
    """
    changes = before.astype(float) - now.mean(axis=0)
    return max(float(changes.var()), 0.5 / len(before)) / len(before)


def difference_interval(before: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """A 95 % interval for the difference of two accuracies on the same images.

    It joins Wilson's interval of each accuracy, using the correlation of the two results (Newcombe, 1998,
    "Improved confidence intervals for the difference between binomial proportions based on paired data",
    Statistics in Medicine 17, method 10).

    Args:
        before: was each image right in the first measurement, bool ``(N,)``.
        now: was each image right in the second measurement, bool ``(N,)``.

    Returns:
        Both ends of the interval of ``now`` minus ``before``, in [-1, 1].

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
    """Newcombe's correlation: the phi coefficient, moved towards 0 by half an image if it is positive."""
    both, neither = int((before & now).sum()), int((~before & ~now).sum())
    changes = Changes.between(before, now)
    margins = [int(part.sum()) for part in (before, ~before, now, ~now)]
    if 0 in margins:
        return 0.0
    excess = float(both * neither - changes.lost * changes.won)
    if excess > 0:
        excess = max(0.0, excess - len(before) / 2)
    return excess / math.sqrt(math.prod(margins))
