"""A re-training beside a baseline of one seed: false alarms and power, by simulation with fixed seeds."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from robustbench_tin.benchmarks.gate.power import drop_seen, power_of_error
from robustbench_tin.benchmarks.gate.rules import LEVEL
from robustbench_tin.benchmarks.statistics.paired import image_variance
from robustbench_tin.benchmarks.statistics.spread import Spread

sys.path.append(str(Path(__file__).parents[2]))  # perf is no part of the package

from perf.one_seed import MEASURES, shares_worse


@pytest.mark.parametrize("deviation", [0.0, 0.01, 0.02])
def test_false_alarms_stay_below_the_level(deviation: float) -> None:
    alarms, _ = shares_worse(deviation, drop=0.0)
    assert alarms <= LEVEL
    if deviation == 0.02:
        assert alarms > 0  # nor does it never fail


def test_a_spread_larger_than_the_assumed_one_makes_more_alarms() -> None:
    """It is an assumption: the docs say how many alarms a wrong one makes."""
    assert shares_worse(0.06, drop=0.0)[0] > 0.2


def test_a_drop_that_stands_out_is_found_and_a_small_one_hardly_ever() -> None:
    assert shares_worse(0.02, drop=0.03)[1] < 0.2
    assert shares_worse(0.02, drop=0.15)[1] > 0.95


def test_the_drop_that_is_seen_is_seen_in_four_of_five_cases() -> None:
    random = np.random.default_rng(0)
    error, level = 0.03, LEVEL / MEASURES
    drop = drop_seen(error, level)
    assert power_of_error(drop, error, level) == pytest.approx(0.8)
    found = np.mean(stats.norm.sf(random.normal(drop, error, 20_000) / error) <= level)
    assert found == pytest.approx(0.8, abs=0.01)


def test_the_variance_of_a_paired_difference_is_that_of_resampled_images() -> None:
    random = np.random.default_rng(1)
    before = random.random(500) < 0.7
    now = np.where(random.random((2, 500)) < 0.15, random.random((2, 500)) < 0.4, before)
    drawn = random.integers(0, 500, (4000, 500))
    drops = before[drawn].mean(axis=1) - now[:, drawn].mean(axis=(0, 2))
    assert math.sqrt(image_variance(before, now)) == pytest.approx(drops.std(), rel=0.05)
    # Images that agree leave half an image of doubt.
    assert image_variance(before, before[None]) == pytest.approx(0.5 / 500**2)


def test_two_tests_count_twice() -> None:
    seen = Spread((200,), (30, 31), 400)
    both = Spread((200,), (30, 31), 400, assumed=0.02, image_variance=0.0004)
    alone = Spread((200,), (30,), 400, assumed=0.02, image_variance=0.0004)
    assert (seen.tests, both.tests, alone.tests) == (1, 2, 1)
    assert both.chances().of_drop <= 2 * seen.chances().of_drop
    score = both.drop / math.sqrt(0.0004 + 0.02**2 * 1.5)
    assert both.chances().of_drop == pytest.approx(2 * stats.norm.sf(score))
