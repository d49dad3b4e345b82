"""Criteria and losses, by definition and by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.losses import cross_entropy, dlr, targeted_dlr, targeted_margin
from robustbench_tin.errors import InvalidSettingError

LOGITS = torch.tensor([[3.0, 1.0, 2.0, -1.0, 0.0, 0.5, 0.25], [0.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5]])
LABELS = torch.tensor([0, 6])


@given(
    seed=st.integers(0, 10_000), k=st.sampled_from([1, 5]), classes=st.integers(6, 12), coarse=st.booleans()
)
def test_a_margin_of_zero_or_more_is_broken(seed: int, k: int, classes: int, *, coarse: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, classes, generator=generator)
    logits = logits.round() if coarse else logits
    labels = torch.randint(classes, (8,), generator=generator)
    criterion = Criterion(k)
    assert torch.equal(criterion.success(logits, labels), criterion.margin(logits, labels) >= 0)


@given(seed=st.integers(0, 10_000), k=st.sampled_from([1, 5]), rank=st.integers(1, 4))
def test_all_targets_above_the_label_is_broken(seed: int, k: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean, logits = torch.randn(2, 8, 10, generator=generator)
    labels = torch.randint(10, (8,), generator=generator)
    criterion = Criterion(k)
    targets = criterion.targets(clean, labels, rank)
    assert targets.shape == (8, k)
    assert not (targets == labels.view(-1, 1)).any()
    reached = targeted_margin(logits, labels, targets) >= 0
    assert (criterion.success(logits, labels) | ~reached).all()


def test_margins_by_hand() -> None:
    assert Criterion(1).margin(LOGITS, LABELS).tolist() == [-1.0, 4.5]
    assert Criterion(5).margin(LOGITS, LABELS).tolist() == [0.0 - 3.0, 1.0 - 0.5]


def test_targets_are_those_of_the_clean_ranks() -> None:
    assert Criterion(1).targets(LOGITS, LABELS, 1).tolist() == [[2], [1]]
    assert Criterion(1).targets(LOGITS, LABELS, 3).tolist() == [[5], [3]]
    assert Criterion(5).targets(LOGITS, LABELS, 2).tolist() == [[1, 5, 6, 4, 3], [2, 3, 4, 5, 0]]


def test_there_are_as_many_ranks_as_classes_allow() -> None:
    assert list(Criterion(1).ranks(10, 9)) == list(range(1, 10))
    assert list(Criterion(1).ranks(200, 9)) == list(range(1, 10))
    assert list(Criterion(1).ranks(3, 9)) == [1, 2]
    assert list(Criterion(5).ranks(7, 9)) == [1, 2]


def test_dlr_by_hand_and_whatever_the_scale() -> None:
    expected = [-1.0 / (3.0 - 1.0), 4.5 / (5.0 - 3.0)]
    assert dlr(LOGITS, LABELS, Criterion(1)).tolist() == pytest.approx(expected)
    assert dlr(1e4 * LOGITS + 7, LABELS, Criterion(1)).tolist() == pytest.approx(expected, rel=1e-4)
    targets = torch.tensor([[1], [2]])
    expected = [(1.0 - 3.0) / (3.0 - 0.75), (4.0 - 0.5) / (5.0 - 2.5)]
    assert targeted_dlr(LOGITS, LABELS, targets).tolist() == pytest.approx(expected)


def test_cross_entropy_is_never_averaged() -> None:
    assert torch.equal(
        cross_entropy(LOGITS, LABELS)[:1], functional.cross_entropy(LOGITS[:1], LABELS[:1], reduction="none")
    )


def test_unknown_criteria_are_refused() -> None:
    with pytest.raises(InvalidSettingError, match="criterion got 'top2'; expected top1 or top5"):
        Criterion.named("top2")
