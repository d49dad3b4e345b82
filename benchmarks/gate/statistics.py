"""Is a drop beyond chance? One test for each of the two questions, and Holm's correction over a table.

*The same weights, or a changed pipeline around them*, are judged on the same images by McNemar's exact paired
test: only images whose outcome changed say anything, and by chance each is as likely lost as won (McNemar,
1947, "Note on the sampling error of the difference between correlated proportions or percentages",
Psychometrika 12). *A re-training* differs from its like by its seed, too, so it is judged against how far
re-trainings lie apart: a one-sided prediction interval, Student's t. One seed shows no spread, so one is
assumed. docs/gate.md states what each takes for granted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Chances:
    """How likely chance alone makes a difference as large as the one seen.

    Attributes:
        of_drop: one-sided p-value of "not worse".
        of_rise: one-sided p-value of "not better".
    """

    of_drop: float
    of_rise: float


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


@dataclass(frozen=True)
class Spread:
    """Accuracies of the baseline's trainings and of those that are checked, on the same images.

    Attributes:
        before: right answers of each of the baseline's seeds.
        now: right answers of each training that is checked; empty before there is one.
        images: that each was measured on.
        assumed: standard deviation between seeds, a fraction, that is taken for granted because the baseline
            has one seed; None if it has more.
        image_variance: of the drop, by the choice of images (:func:`image_variance`); used with ``assumed``.
    """

    before: tuple[int, ...]
    now: tuple[int, ...]
    images: int
    assumed: float | None = None
    image_variance: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there are two trainings of a kind, so that a spread can be known at all."""
        return self.freedom >= 1

    @property
    def tests(self) -> int:
        """Number of tests that :meth:`chances` makes: of the observed spread, of the assumed one, or both."""
        return self.known + (self.assumed is not None)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the spread."""
        return sum(len(counts) - 1 for counts in (self.before, self.now) if counts)

    @property
    def drop(self) -> float:
        """Mean accuracy before less that of now, a fraction."""
        return float(np.mean(self.before) - np.mean(self.now)) / self.images

    @property
    def deviation(self) -> float:
        """Standard deviation of one training's accuracy, a fraction.

        Pooled within both sides. It is never taken below what counting so many images at this accuracy
        gives: a few seeds that agree by luck, or all at 0 or 100 %, do not make every drop a certainty.
        """
        squares = sum(float(np.var(counts)) * len(counts) for counts in (self.before, self.now) if counts)
        seen = squares / self.freedom / self.images**2
        trainings = len(self.before) + len(self.now)
        # Half an image each way, so that the floor is not nothing where all or none are right.
        rate = (sum(self.before) + sum(self.now) + 0.5) / (trainings * self.images + 1)
        return math.sqrt(max(seen, rate * (1 - rate) / self.images))

    @property
    def error(self) -> float:
        """Standard error of the drop."""
        return self.deviation * math.sqrt(1 / len(self.before) + 1 / len(self.now))

    @property
    def assumed_error(self) -> float:
        """Standard error of the drop by the choice of images and the assumed deviation of each training."""
        assert self.assumed is not None
        seeds = self.assumed**2 * (1 / len(self.before) + 1 / len(self.now))
        return math.sqrt(self.image_variance + seeds)

    def chances(self) -> Chances:
        """How likely seeds alone make such a drop or rise; at least one of :attr:`tests` must be possible.

        If both are, the smaller p-value counts twice (Bonferroni): few re-trainings of a baseline of one seed
        leave Student's t hardly any power.
        """
        found = [self._by_observed_spread()] if self.known else []
        found += [self._by_assumed_spread()] if self.assumed is not None else []
        return Chances(
            min(1.0, len(found) * min(each.of_drop for each in found)),
            min(1.0, len(found) * min(each.of_rise for each in found)),
        )

    def _by_observed_spread(self) -> Chances:
        """Student's t; with one training that is checked, the prediction interval of the baseline's seeds."""
        from scipy.stats import t

        score = self.drop / self.error
        return Chances(float(t.sf(score, self.freedom)), float(t.cdf(score, self.freedom)))

    def _by_assumed_spread(self) -> Chances:
        from scipy.stats import norm

        score = self.drop / self.assumed_error
        return Chances(float(norm.sf(score)), float(norm.cdf(score)))

    def lowest(self, level: float) -> float:
        """Below this accuracy a training is beyond chance at a one-sided level."""
        from scipy.stats import t

        return float(np.mean(self.before)) / self.images - float(t.isf(level, self.freedom)) * self.error


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


def holm(chances: Sequence[float]) -> list[float]:
    """p-values corrected so that over all of them at most one table in ``1 / level`` has a false alarm.

    Valid however the measures depend on each other (Holm, 1979, "A simple sequentially rejective multiple
    test procedure", Scandinavian Journal of Statistics 6).

    Args:
        chances: p-values, in any order.

    Returns:
        The corrected ones in the same order, each in [0, 1].

    >>> holm([0.25, 0.0625, 0.125])
    [0.25, 0.1875, 0.25]
    """
    corrected = [0.0] * len(chances)
    reached = 0.0
    order = sorted(range(len(chances)), key=lambda index: chances[index])
    for rank, index in enumerate(order):
        reached = max(reached, min(1.0, (len(chances) - rank) * chances[index]))
        corrected[index] = reached
    return corrected
