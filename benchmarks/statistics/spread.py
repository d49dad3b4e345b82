"""Compare trainings with trainings: how much does accuracy vary between seeds?

A re-training has another seed. So a difference is compared with the spread between trainings of one kind, by
Student's t. If one side has a single training, the test is a prediction interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robustbench_tin.benchmarks.statistics.chances import Chances
from robustbench_tin.benchmarks.statistics.wilson import CONFIDENCE


@dataclass(frozen=True)
class Spread:
    """Accuracies of the baseline's trainings and of the checked trainings, on the same images.

    Attributes:
        before: number of right answers of each of the baseline's seeds.
        now: number of right answers of each checked training; empty if none was measured yet.
        images: number of images that each training was measured on.
        assumed: assumed standard deviation between seeds, a fraction, if the baseline has one seed; None if
            it has several.
        image_variance: variance of the drop that comes from the choice of images (:func:`image_variance`);
            used together with ``assumed``.
    """

    before: tuple[int, ...]
    now: tuple[int, ...]
    images: int
    assumed: float | None = None
    image_variance: float = 0.0

    @property
    def known(self) -> bool:
        """Whether one side has at least two trainings, so that the spread can be estimated."""
        return self.freedom >= 1

    @property
    def tests(self) -> int:
        """Number of tests in :meth:`chances`: one for the observed spread, one for the assumed spread."""
        return self.known + (self.assumed is not None)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the spread."""
        return sum(len(counts) - 1 for counts in (self.before, self.now) if counts)

    @property
    def drop(self) -> float:
        """Mean accuracy before minus mean accuracy now, a fraction; positive if accuracy fell."""
        return float(np.mean(self.before) - np.mean(self.now)) / self.images

    @property
    def deviation(self) -> float:
        """Standard deviation of one training's accuracy, a fraction; pooled over both sides.

        It is at least the binomial standard deviation for this accuracy and number of images. Otherwise a
        few seeds that agree by luck, or are all at 0 or 100 %, would make every drop significant.
        """
        squares = sum(float(np.var(counts)) * len(counts) for counts in (self.before, self.now) if counts)
        seen = squares / self.freedom / self.images**2
        trainings = len(self.before) + len(self.now)
        # Half an image in each direction: the lower bound is above 0 even if all or no images are right.
        rate = (sum(self.before) + sum(self.now) + 0.5) / (trainings * self.images + 1)
        return math.sqrt(max(seen, rate * (1 - rate) / self.images))

    @property
    def error(self) -> float:
        """Standard error of the drop."""
        return self.deviation * math.sqrt(1 / len(self.before) + 1 / len(self.now))

    @property
    def assumed_error(self) -> float:
        """Standard error of the drop: choice of images plus the assumed deviation of each training."""
        assert self.assumed is not None
        seeds = self.assumed**2 * (1 / len(self.before) + 1 / len(self.now))
        return math.sqrt(self.image_variance + seeds)

    def chances(self) -> Chances:
        """The probabilities that seeds alone cause a drop or rise this large; :attr:`tests` must be above 0.

        If both tests are possible, the smaller p-value is doubled (Bonferroni): with a baseline of one seed
        and few re-trainings, Student's t has hardly any power.
        """
        found = [self._by_observed_spread()] if self.known else []
        found += [self._by_assumed_spread()] if self.assumed is not None else []
        return Chances(
            min(1.0, len(found) * min(each.of_drop for each in found)),
            min(1.0, len(found) * min(each.of_rise for each in found)),
        )

    def _by_observed_spread(self) -> Chances:
        """Student's t; with one checked training it is the prediction interval of the baseline's seeds."""
        from scipy.stats import t

        score = self.drop / self.error
        return Chances(float(t.sf(score, self.freedom)), float(t.cdf(score, self.freedom)))

    def _by_assumed_spread(self) -> Chances:
        from scipy.stats import norm

        score = self.drop / self.assumed_error
        return Chances(float(norm.sf(score)), float(norm.cdf(score)))

    def interval(self) -> tuple[float, float]:
        """Student's t interval at 95 % for the mean accuracy of ``now`` minus the mean of ``before``."""
        from scipy.stats import t

        reach = float(t.isf((1 - CONFIDENCE) / 2, self.freedom)) * self.error
        return max(-1.0, -self.drop - reach), min(1.0, -self.drop + reach)

    def lowest(self, level: float) -> float:
        """The lowest accuracy, a fraction, that chance explains at a one-sided level in (0, 1)."""
        from scipy.stats import t

        return float(np.mean(self.before)) / self.images - float(t.isf(level, self.freedom)) * self.error
