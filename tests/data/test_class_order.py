"""A model's classes in another order: labels follow it, and the order that fits is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_sets import WNIDS, draw_tiny_imagenet, picture, save

from robustbench_tin.benchmarks.measurement.class_orders import fitting_order
from robustbench_tin.data import Dataset, open_dataset, subset
from robustbench_tin.data.class_order import in_class_order, other_orders
from robustbench_tin.errors import RobustTinError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return open_dataset(str(draw_tiny_imagenet(tmp_path / "set")), cache_dir=tmp_path / "cache")


def ids(dataset: Dataset) -> list[str]:
    """The class id of each validation image; no order may change it."""
    return [dataset.classes[label] for label in dataset.val.labels]


def test_sorted_is_the_order_of_image_folder(dataset: Dataset) -> None:
    found = in_class_order(dataset, "sorted")
    assert found.classes == ("n01", "n02", "n03")
    assert found.class_names == ("goldfish, carp", "crane", "crane, lifting device")
    assert ids(found) == ids(dataset)
    assert [found.classes[label] for label in found.train.labels] == [
        dataset.classes[label] for label in dataset.train.labels
    ]
    assert not np.array_equal(found.val.labels, dataset.val.labels)
    for order in (None, "wnids"):
        assert in_class_order(dataset, order) is dataset


def test_imagenet_is_the_order_of_published_networks(dataset: Dataset) -> None:
    known = replace(
        dataset, classes=("n01443537", "n15075141", "n01440764")
    )  # goldfish, toilet tissue, tench
    found = in_class_order(known, "imagenet")
    assert len(found.classes) == 1000
    assert [int(found.val.labels[list(dataset.val.labels).index(label)]) for label in range(3)] == [1, 999, 0]
    with pytest.raises(RobustTinError, match="'imagenet' lacks 3 of 3 classes"):
        in_class_order(dataset, "imagenet")


CONTENT = {
    "lines": b"n02\nn03\n\nn01\n",
    "a byte-order mark": "\ufeffn02\r\nn03\r\nn01".encode(),
    "UTF-16": "n02\nn03\nn01\n".encode("utf-16"),
    "words": b"n02\tcrane\nn03\tcrane, lifting device\nn01\tgoldfish\n",
    "names": b"crane\ncrane, lifting device\nGoldfish, carp\n",
    "a list": json.dumps(["n02", "n03", "n01"]).encode(),
    "by index": json.dumps({"1": "n03", "0": "n02", "2": "n01"}).encode(),
    "by index with names": json.dumps({"0": ["n02", "a"], "1": ["n03", "b"], "2": ["n01", "c"]}).encode(),
    "class_to_idx": json.dumps({"n01": 2, "n02": 0, "n03": 1}).encode(),
}


@pytest.mark.parametrize("content", CONTENT.values(), ids=CONTENT.keys())
def test_a_file_lists_the_classes(dataset: Dataset, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "order").write_bytes(content)
    found = in_class_order(dataset, tmp_path / "order")
    assert found.classes == ("n02", "n03", "n01")
    assert ids(found) == ids(dataset)


def test_a_file_may_list_more_classes_than_the_data_set_has(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "order").write_text("n00\nn01\nn02\nn99\nn03\n")
    found = in_class_order(dataset, tmp_path / "order", outputs=5)
    assert set(found.val.labels.tolist()) == {1, 2, 4}
    assert ids(found) == ids(dataset)


def test_a_part_counts_all_outputs_of_a_model_of_the_whole(dataset: Dataset) -> None:
    part = subset(dataset, classes=["n01", "n02"])
    assert part.whole == WNIDS
    assert in_class_order(part, None, outputs=2) is part
    whole = in_class_order(part, None, outputs=3)
    assert whole.classes == WNIDS
    assert ids(whole) == ids(part)
    assert set(in_class_order(part, "sorted", outputs=3).val.labels.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"n01\nn02\n", "lacks 1 of 3 classes, first 'n03'"),
        (b"n01\nn01\nn02\nn03\n", "lists 'n01' twice"),
        (b"", "is empty"),
        (b"\xff\xff\xff", "contains no class ids"),
        (b'{"a": "n01"}', "contains no class ids"),
        (b'{"n01": 0, "n02": 7}', "contains no class ids"),
        (b"[" * 100_000, "contains no class ids"),
        (b"[[]]", "contains no class ids"),
    ],
)
def test_a_file_that_is_none_is_one_line(dataset: Dataset, tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "order").write_bytes(content)
    with pytest.raises(RobustTinError, match=told) as caught:
        in_class_order(dataset, tmp_path / "order")
    assert len(str(caught.value).splitlines()) == 1


def test_orders_that_are_not_there(dataset: Dataset, tmp_path: Path) -> None:
    for order in ("alphabetical", tmp_path, "/dev/zero"):
        with pytest.raises(RobustTinError, match="expected sorted, wnids, imagenet or a file"):
            in_class_order(dataset, order)
    for part in ("train", "val"):
        save(tmp_path / "plain" / part / "carp" / "0.png", picture(0))
    with pytest.raises(RobustTinError, match=r"has no wnids\.txt"):
        in_class_order(open_dataset(str(tmp_path / "plain"), cache_dir=tmp_path), "wnids")


def answers_in(dataset: Dataset, order: str) -> torch.Tensor:
    """Logits of a model that is always right, in this order."""
    labels = torch.from_numpy(in_class_order(dataset, order, 3).val.labels)
    return torch.nn.functional.one_hot(labels, 3).float()


def test_the_order_that_fits_is_named(dataset: Dataset) -> None:
    labels = torch.from_numpy(dataset.val.labels)
    orders = other_orders(dataset, None, 3)
    assert list(orders) == ["sorted"]
    line = fitting_order(answers_in(dataset, "sorted"), labels, orders)
    assert line is not None
    assert "12 in the class order 'sorted': give --class-order sorted" in line
    assert fitting_order(answers_in(dataset, "wnids"), labels, orders) is None
    again = other_orders(dataset, "sorted", 3)
    assert list(again) == ["wnids"]
    taken = torch.from_numpy(in_class_order(dataset, "sorted").val.labels)
    assert "'wnids'" in str(fitting_order(answers_in(dataset, "wnids"), taken, again))


def test_another_order_is_seen_without_its_name_and_chance_is_not_taken_for_one() -> None:
    dice = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 10
    moved = torch.nn.functional.one_hot((labels + 3) % 10, 10).float()
    assert "in another order" in str(fitting_order(moved, labels, {}))
    assert fitting_order(torch.rand(200, 10, generator=dice), labels, {}) is None
    assert fitting_order(torch.ones(200, 10), labels, {}) is None
    assert fitting_order(torch.nn.functional.one_hot(labels, 10).float(), labels, {}) is None
    assert fitting_order(torch.rand(1, 10, generator=dice), labels[:1], {}) is None
