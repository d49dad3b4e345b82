"""Top-k and the statistics, each against a second formula."""

from __future__ import annotations

import math

import pytest
import torch

from robustbench_tin.metrics import above_chance, in_top, interval


def test_in_top_agrees_with_sorting_where_nothing_is_tied() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 12, generator=generator)
    labels = torch.randint(12, (200,), generator=generator)
    for k in (1, 2, 5, 11):
        expected = (logits.topk(k).indices == labels[:, None]).any(dim=1)
        assert torch.equal(in_top(logits, labels, k), expected)


@pytest.mark.parametrize(
    ("logits", "label", "k", "expected"),
    [
        ([1.0, 1.0, 0.0], 0, 1, False),
        ([1.0, 1.0, 0.0], 0, 2, True),
        ([1.0, 1.0, 1.0], 2, 2, False),
        ([1.0, 1.0, 1.0], 2, 3, True),
        ([0.0, 0.0, 1.0], 2, 1, True),
        ([0.0, 1.0], 0, 5, True),
        ([3.0], 0, 1, True),
    ],
)
def test_ties_count_against_the_classifier(logits: list, label: int, k: int, expected: bool) -> None:
    assert in_top(torch.tensor([logits]), torch.tensor([label]), k).tolist() == [expected]


@pytest.mark.parametrize("own", [0.0, float("nan")])
def test_what_is_not_a_number_is_never_right(own: float) -> None:
    nan = float("nan")
    assert not in_top(torch.tensor([[own, nan, nan]]), torch.tensor([0]), 1).item()


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The two roots of (p - share)² = z² p (1 - p) / n, from Wilson's definition."""
    z = 1.959963984540054
    share = successes / trials
    a, b, c = 1 + z * z / trials, -(2 * share + z * z / trials), share * share
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 1), (1, 1), (0, 500), (500, 500), (50, 100), (1, 10_000)]
)
def test_intervals_are_wilsons(successes: int, trials: int) -> None:
    low, high = interval(successes, trials)
    assert (low, high) == pytest.approx(wilson(successes, trials), abs=1e-12)
    assert 0 <= low <= successes / trials <= high <= 1


@pytest.mark.parametrize("classes", [2, 10, 200])
@pytest.mark.parametrize("trials", [1, 30, 500])
def test_above_chance_sums_the_binomials_upper_tail(trials: int, classes: int) -> None:
    chance = 1 / classes
    terms = [math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(trials + 1)]
    verdicts = [above_chance(successes, trials, classes) for successes in range(trials + 1)]
    assert verdicts == [math.fsum(terms[successes:]) < 0.001 for successes in range(trials + 1)]
