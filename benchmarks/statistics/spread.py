"""Trainings against trainings: how far apart do seeds lie?

A re-training differs from its like by its seed, so a difference is judged against how far trainings of one
kind lie apart: Student's t. A single training on one side makes it a prediction interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robustbench_tin.benchmarks.statistics.chances import Chances
from robustbench_tin.benchmarks.statistics.wilson import CONFIDENCE


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

    def interval(self) -> tuple[float, float]:
        """Student's t interval at 95 % for the mean accuracy of ``now`` less that of ``before``."""
        from scipy.stats import t

        reach = float(t.isf((1 - CONFIDENCE) / 2, self.freedom)) * self.error
        return max(-1.0, -self.drop - reach), min(1.0, -self.drop + reach)

    def lowest(self, level: float) -> float:
        """Below this accuracy a training is beyond chance at a one-sided level."""
        from scipy.stats import t

        return float(np.mean(self.before)) / self.images - float(t.isf(level, self.freedom)) * self.error
