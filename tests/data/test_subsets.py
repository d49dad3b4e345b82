from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_tin.data import UNLABELLED, Dataset, Split, subset
from robustbench_tin.errors import DataError, InvalidSettingError, RobustTinError, UnknownNameError

CLASSES = ("n1", "n2", "n3", "n4", "n5")
NAMES = ("goldfish, Carassius", "crane", "tabby, tabby cat", "crane", "Egyptian cat")


def drawn(train: Sequence[int], val: Sequence[int]) -> Dataset:
    """As many images a class as asked for, mixed, each with its own number in its first pixels."""

    def split(counts: Sequence[int], first: int) -> Split:
        labels = np.random.RandomState(0).permutation(np.repeat(np.arange(5), counts)).astype(np.int64)
        images = np.zeros((len(labels), 3, 2, 2), np.uint8)
        images[:, 0, 0, 0] = np.arange(len(labels))
        boxes = np.stack([np.arange(len(labels), dtype=np.int32)] * 4, axis=1)
        return Split(images, labels, boxes, [f"{first}/{row}" for row in range(len(labels))])

    test = Split(np.zeros((1, 3, 2, 2), np.uint8), np.array([UNLABELLED]))
    return Dataset("drawn", "nowhere", CLASSES, NAMES, split(train, 0), split(val, 1), "0" * 16, test)


EVEN = drawn([8] * 5, [6] * 5)
UNEVEN = drawn([1, 8, 3, 8, 5], [6, 1, 4, 9, 2])


def per_class(split: Split) -> list[int]:
    return [int(count) for count in np.bincount(split.labels)]


def ids(split: Split) -> set[str]:
    return set(split.ids or ())


def test_nothing_asked_for_is_the_whole() -> None:
    assert subset(EVEN) is EVEN
    assert subset(EVEN, classes=5, train_per_class=8, eval_images=30) is EVEN


def test_rows_stay_together_and_labels_are_numbered_anew() -> None:
    part = subset(EVEN, classes=3, train_per_class=4, eval_images=7, seed=3)
    assert len(part.classes) == 3
    assert per_class(part.train) == [4, 4, 4]
    assert sorted(per_class(part.val)) == [2, 2, 3]
    assert part.test is EVEN.test
    for split, whole in ((part.train, EVEN.train), (part.val, EVEN.val)):
        rows = [int(name.split("/")[1]) for name in split.ids or ()]
        assert rows == sorted(set(rows))
        np.testing.assert_array_equal(split.images, whole.images[rows])
        np.testing.assert_array_equal(split.boxes, whole.boxes[rows])  # type: ignore[index]
        assert [part.classes[label] for label in split.labels] == [
            EVEN.classes[label] for label in whole.labels[rows]
        ]
    assert list(part.classes) == [name for name in CLASSES if name in part.classes]


def test_the_same_part_on_every_machine() -> None:
    part = subset(EVEN, classes=2, train_per_class=2, eval_images=3, seed=1)
    assert part.classes == ("n2", "n3")
    assert part.train.ids == ["0/0", "0/5", "0/23", "0/33"]
    assert part.val.ids == ["1/3", "1/12", "1/13"]
    assert part.fingerprint == "f9f649ed85f26484"


def test_another_seed_is_another_part() -> None:
    parts = [subset(EVEN, train_per_class=4, seed=seed) for seed in (0, 1)]
    assert ids(parts[0].train) != ids(parts[1].train)
    assert parts[0].fingerprint != parts[1].fingerprint


def test_the_fingerprint_is_of_the_part_however_it_was_asked_for() -> None:
    counted = subset(EVEN, classes=2)
    named = subset(EVEN, classes=list(reversed(counted.classes)), seed=9)
    assert counted.fingerprint == named.fingerprint != EVEN.fingerprint
    assert counted.fingerprint != subset(EVEN, classes=3).fingerprint
    assert subset(EVEN, eval_images=3).fingerprint != subset(EVEN, eval_images=4).fingerprint


numbers = st.integers(1, 8)


@settings(max_examples=60, deadline=None)
@given(classes=st.integers(1, 4), train=numbers, evals=numbers, seed=st.integers(0, 3), uneven=st.booleans())
def test_parts_are_nested(classes: int, train: int, evals: int, seed: int, uneven: bool) -> None:
    whole = UNEVEN if uneven else EVEN
    few = subset(whole, train_per_class=train, eval_images=evals, seed=seed)
    assert ids(few.train) <= ids(subset(whole, train_per_class=8, eval_images=evals, seed=seed).train)
    more = subset(whole, train_per_class=train, eval_images=evals + 3, seed=seed)
    assert ids(few.val) < ids(more.val)
    assert ids(few.train) == ids(more.train)
    narrow, wide = (subset(whole, classes=count, seed=seed) for count in (classes, classes + 1))
    assert set(narrow.classes) < set(wide.classes)
    assert ids(narrow.train) < ids(wide.train)


@settings(max_examples=40, deadline=None)
@given(evals=st.integers(1, 22), seed=st.integers(0, 5))
def test_evaluation_images_are_spread_as_evenly_as_they_can_be(evals: int, seed: int) -> None:
    chosen = np.bincount(subset(UNEVEN, eval_images=evals, seed=seed).val.labels, minlength=5)
    there = np.bincount(UNEVEN.val.labels)
    assert chosen.sum() == evals
    assert (chosen <= there).all()
    for count, available in zip(chosen, there, strict=True):
        assert count == available or count >= chosen.max() - 1


def test_a_class_with_fewer_gives_all_it_has() -> None:
    assert per_class(subset(UNEVEN, train_per_class=4).train) == [1, 4, 3, 4, 4]


def test_a_whole_split_is_not_copied() -> None:
    part = subset(EVEN, eval_images=5)
    assert np.shares_memory(part.train.images, EVEN.train.images)
    assert not np.shares_memory(part.val.images, EVEN.val.images)


def test_labels_follow_where_only_the_chosen_classes_have_images() -> None:
    whole = drawn([4] * 5, [0, 0, 3, 0, 3])
    part = subset(whole, classes=["n3", "n5"])
    assert sorted(set(part.val.labels.tolist())) == [0, 1]
    assert per_class(part.val) == [3, 3]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["n4", "n2"], ("n2", "n4")),
        (["goldfish"], ("n1",)),
        (["Tabby, tabby cat", "egyptian CAT"], ("n3", "n5")),
        (["tabby cat", "n3"], ("n3",)),
        ("n1", ("n1",)),
    ],
)
def test_classes_by_id_and_by_name(names: Sequence[str], expected: tuple[str, ...]) -> None:
    assert subset(EVEN, classes=names).classes == expected


@pytest.mark.parametrize(
    ("choice", "kind", "message"),
    [
        ({"classes": 6}, DataError, "classes got 6, but 'drawn' has 5"),
        ({"train_per_class": 9}, DataError, "train_per_class got 9, but .* more than 8"),
        ({"eval_images": 31}, DataError, "eval_images got 31, but the chosen classes have 30"),
        ({"classes": 2, "eval_images": 13}, DataError, "the chosen classes have 12"),
        ({"classes": 0}, InvalidSettingError, "got classes=0; expected 1 or more"),
        ({"train_per_class": -1}, InvalidSettingError, "got train_per_class=-1"),
        ({"eval_images": 0}, InvalidSettingError, "got eval_images=0"),
        ({"classes": []}, InvalidSettingError, "empty list of classes"),
        (
            {"classes": ["goldfsh"]},
            UnknownNameError,
            "unknown class of 'drawn' 'goldfsh'; did you mean 'goldfish'",
        ),
        ({"classes": ["zebu"]}, UnknownNameError, "known: Carassius, Egyptian cat, crane, goldfish, n1"),
        ({"classes": ["crane"]}, InvalidSettingError, "may mean n2, n4; give the id"),
    ],
)
def test_what_cannot_be_chosen(choice: dict[str, Any], kind: type[RobustTinError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        subset(EVEN, **choice)
    assert "\n" not in str(caught.value)
