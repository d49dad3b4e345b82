"""The gate's statistical tests against other ways to compute them, and their error rates by simulation."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robustbench_tin.benchmarks.gate.power import (
    images_needed,
    power_of_images,
    power_of_seeds,
    seeds_needed,
    visible_drop,
)
from robustbench_tin.benchmarks.statistics.chances import holm
from robustbench_tin.benchmarks.statistics.paired import Changes
from robustbench_tin.benchmarks.statistics.spread import Spread


def test_changes_are_counted_each_way():
    before = np.array([True, True, True, False, False, True])
    now = np.array([False, False, True, True, False, True])
    changes = Changes.between(before, now)
    assert (changes.lost, changes.won, changes.images) == (2, 1, 6)
    assert changes.share == 0.5


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (0, 1), (5, 5), (9, 1), (3, 8)])
def test_mcnemar_counts_coin_flips(lost, won):
    """Against an enumeration of all 2^changed ways that the changes might have fallen."""
    ways = [sum(way) for way in product((0, 1), repeat=lost + won)]
    chances = Changes(lost, won, 100).chances()
    assert chances.of_drop == pytest.approx(np.mean([losses >= lost for losses in ways]))
    assert chances.of_rise == pytest.approx(np.mean([losses <= lost for losses in ways]))


def test_one_retraining_is_judged_by_the_prediction_interval_of_the_seeds():
    before, now, images = (5200, 5310, 5150, 5260, 5080), 4700, 10_000
    spread = Spread(before, (now,), images)
    mean, deviation = np.mean(before), np.std(before, ddof=1)
    error = deviation * math.sqrt(1 + 1 / 5)
    assert spread.chances().of_drop == pytest.approx(stats.t.sf((mean - now) / error, 4))
    low, _ = stats.t.interval(0.9, 4, loc=mean / images, scale=error / images)
    assert spread.lowest(0.05) == pytest.approx(low)


def test_several_retrainings_are_judged_by_student_s_test():
    before, now, images = (5200, 5310, 5150, 5260, 5080), (4980, 5100, 5060), 10_000
    theirs = stats.ttest_ind(before, now, alternative="greater").pvalue
    chances = Spread(before, now, images).chances()
    assert chances.of_drop == pytest.approx(theirs)
    assert chances.of_rise == pytest.approx(1 - theirs)


def test_the_spread_is_at_least_what_counting_gives():
    alike = Spread((90, 90, 90, 90, 90), (87,), 100)
    assert alike.deviation == pytest.approx(math.sqrt(0.895 * 0.105 / 100), rel=0.01)
    assert alike.chances().of_drop > 0.1
    # Also if all or none are right, and with few images.
    assert Spread((8, 8, 8), (7,), 8).chances().of_drop > 0.05
    assert Spread((0, 0, 0), (0,), 8).chances().of_drop == pytest.approx(0.5)


def test_one_seed_knows_no_spread():
    assert not Spread((90,), (80,), 100).known
    assert Spread((90,), (80, 81), 100).known
    assert not Spread((90,), (), 100).known


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15), st.floats(0.001, 0.999))
def test_holm_rejects_what_its_steps_reject(chances, level):
    """Against the procedure as published: step through the sorted values and stop at the first miss."""
    rejected = set()
    for rank, index in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        if (len(chances) - rank) * chances[index] > level:
            break
        rejected.add(index)
    corrected = holm(chances)
    assert {index for index, value in enumerate(corrected) if value <= level} == rejected
    assert all(raw <= value <= 1 for raw, value in zip(chances, corrected, strict=True))


def test_power_of_images_is_what_simulation_finds():
    random = np.random.default_rng(0)
    images, drop, changed, level = 800, 0.03, 0.12, 0.05 / 12
    all_changed = random.binomial(images, changed, 4000)
    lost = random.binomial(all_changed, (1 + drop / changed) / 2)
    found = np.mean([stats.binom.sf(a - 1, b, 0.5) <= level for a, b in zip(lost, all_changed, strict=True)])
    assert power_of_images(images, drop, changed, level) == pytest.approx(found, abs=0.025)


def test_power_of_seeds_is_what_simulation_finds():
    random = np.random.default_rng(0)
    seeds, drop, deviation, level = 5, 0.03, 0.006, 0.05 / 12
    before = random.normal(0.5, deviation, (20_000, seeds))
    now = random.normal(0.5 - drop, deviation, 20_000)
    error = before.std(axis=1, ddof=1) * math.sqrt(1 + 1 / seeds)
    found = np.mean(stats.t.sf((before.mean(axis=1) - now) / error, seeds - 1) <= level)
    assert power_of_seeds(seeds, 1, drop, deviation, level) == pytest.approx(found, abs=0.015)


@pytest.mark.parametrize("changed", [0.03, 0.1, 0.4])
def test_images_needed_are_enough_and_hardly_more(changed):
    needed = images_needed(0.03, changed, 0.05 / 12)
    assert power_of_images(needed, 0.03, changed, 0.05 / 12) >= 0.8
    assert power_of_images(int(0.9 * needed), 0.03, changed, 0.05 / 12) < 0.8


def test_a_drop_too_small_for_any_number_of_images_or_seeds():
    assert images_needed(1e-5, 0.5, 0.004) is None
    assert seeds_needed(0.01, 0.05, 0.004) is None
    assert visible_drop(1, 1, 0.01, 0.05) is None
    seen = visible_drop(5, 1, 0.01, 0.004)
    assert power_of_seeds(5, 1, seen, 0.01, 0.004) == pytest.approx(0.8, abs=0.01)
    assert seeds_needed(seen, 0.01, 0.004) == 5


def tables_that_fail(chances: np.ndarray, level: float = 0.05) -> float:
    """The part of tables (one a row) with a false alarm."""
    return float(np.mean([min(holm(row)) <= level for row in chances]))


def test_false_alarms_of_changed_pipelines_stay_below_the_level():
    """1,000 tables of 12 measures whose changes are as often losses as gains, in several shares."""
    random = np.random.default_rng(1)
    changed = random.binomial(1000, np.tile([0.01, 0.05, 0.2], (1000, 4)))
    lost = random.binomial(changed, 0.5)
    alarms = tables_that_fail(np.where(changed > 0, stats.binom.sf(lost - 1, changed, 0.5), 1.0))
    assert alarms <= 0.05
    assert alarms > 0.005  # neither does it never fail


@pytest.mark.parametrize(
    ("images", "accuracy", "between"), [(10_000, 0.3, 0.01), (100, 0.98, 0.0), (60, 0.05, 0.01)]
)
def test_false_alarms_of_retrainings_stay_below_the_level(images, accuracy, between):
    """500 tables of 12 measures, five seeds and a sixth of the same kind, with counts near the ends, too."""
    random = np.random.default_rng(2)
    rates = np.clip(random.normal(accuracy, between, (500, 12, 6)), 0, 1)
    counts = random.binomial(images, rates)
    chances = np.array(
        [[Spread(tuple(c[:5]), (int(c[5]),), images).chances().of_drop for c in row] for row in counts]
    )
    assert tables_that_fail(chances) <= 0.05
