"""Tests and intervals of the statistics room against statsmodels and scipy, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from robustbench_tin.benchmarks.statistics.chances import holm
from robustbench_tin.benchmarks.statistics.paired import Changes, difference_interval
from robustbench_tin.benchmarks.statistics.spread import Spread


def pair(random: np.random.Generator, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Two columns of results with a random dependence."""
    shared = random.random(images) < random.random()
    columns = [random.random(images) < random.random() for _ in range(2)]
    mixed = random.random(images) < random.random()
    return np.where(mixed, shared, columns[0]), np.where(mixed, shared, columns[1])


@pytest.mark.parametrize("seed", range(20))
def test_mcnemar_s_exact_test_is_that_of_statsmodels(seed: int) -> None:
    random = np.random.default_rng(seed)
    before, now = pair(random, int(random.integers(1, 300)))
    table = [
        [int((before & now).sum()), int((before & ~now).sum())],
        [int((~before & now).sum()), int((~before & ~now).sum())],
    ]
    ours = Changes.between(before, now).chances().of_difference
    assert ours == pytest.approx(mcnemar(table, exact=True).pvalue)


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_that_of_statsmodels(seed: int) -> None:
    random = np.random.default_rng(seed)
    chances = random.random(int(random.integers(1, 40))) ** random.integers(1, 6)
    _, theirs, _, _ = multipletests(chances, method="holm")
    assert holm(list(chances)) == pytest.approx(list(theirs))


def test_t_over_seeds_is_that_of_scipy_if_seeds_lie_apart() -> None:
    ours, theirs = (5200, 5310, 5150), (4980, 5100, 5060, 5300)
    spread = Spread(ours, theirs, 10_000)
    known = stats.ttest_ind(np.array(theirs) / 10_000, np.array(ours) / 10_000)
    assert spread.chances().of_difference == pytest.approx(known.pvalue)
    low, high = known.confidence_interval(0.95)
    assert spread.interval() == pytest.approx((low, high))


def test_the_interval_of_a_difference_covers_it_in_95_of_100_samples() -> None:
    """Against the truth of a population of results that depend on each other."""
    random = np.random.default_rng(0)
    for both, lost, won in ((0.6, 0.1, 0.05), (0.05, 0.02, 0.1), (0.9, 0.03, 0.0), (0.3, 0.2, 0.2)):
        states = random.choice(4, size=(600, 150), p=[both, lost, won, 1 - both - lost - won])
        ends = np.array([difference_interval(row <= 1, (row == 0) | (row == 2)) for row in states])
        covered = (ends[:, 0] <= won - lost) & (won - lost <= ends[:, 1])
        assert 0.93 <= covered.mean() <= 0.995


@pytest.mark.parametrize("seed", range(10))
def test_the_interval_is_around_the_difference_and_turns_with_the_sides(seed: int) -> None:
    before, now = pair(np.random.default_rng(seed), 40)
    low, high = difference_interval(before, now)
    assert -1 <= low <= now.mean() - before.mean() <= high <= 1
    assert difference_interval(now, before) == pytest.approx((-high, -low))
