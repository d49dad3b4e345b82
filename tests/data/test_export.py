"""Data sets written in Tiny ImageNet's layout, and read again."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import draw_tiny_imagenet

from robustbench_tin.data import Dataset, Split, open_dataset
from robustbench_tin.data.export import TinyImageNetWriter
from robustbench_tin.errors import DataError, RunError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return open_dataset(str(draw_tiny_imagenet(tmp_path / "drawn")), cache_dir=tmp_path / "cache")


def write(root: Path, dataset: Dataset, parts: dict[str, Split]) -> None:
    with TinyImageNetWriter(root, dataset, parts, workers=2) as writer:
        for name, split in parts.items():
            for start in range(0, len(split), 4):
                writer.add(name, start, split.images[start : start + 4])
        writer.finish()


def test_what_is_written_is_read_back_the_same(dataset: Dataset, tmp_path: Path) -> None:
    write(tmp_path / "out", dataset, {"train": dataset.train, "val": dataset.val})
    again = open_dataset(str(tmp_path / "out"), cache_dir=tmp_path / "cache")
    assert again.classes == dataset.classes
    assert again.class_names == dataset.class_names
    assert again.fingerprint == dataset.fingerprint, "images, labels, boxes and their order"
    assert again.train.ids[0] == dataset.train.ids[0].replace(".JPEG", ".png")


@pytest.mark.parametrize("ids", [None, ["same/name.png"] * 15])
def test_images_without_names_of_their_own_are_numbered(
    dataset: Dataset, tmp_path: Path, ids: list[str] | None
) -> None:
    train = dataclasses.replace(dataset.train, ids=ids, boxes=None)
    write(tmp_path / "out", dataset, {"train": train, "val": dataset.val})
    again = open_dataset(str(tmp_path / "out"), cache_dir=tmp_path / "cache")
    assert np.array_equal(again.train.images, train.images)
    assert (again.train.boxes == -1).all()


def test_unfinished_it_is_no_data_set(dataset: Dataset, tmp_path: Path) -> None:
    with TinyImageNetWriter(
        tmp_path / "out", dataset, {"train": dataset.train, "val": dataset.val}
    ) as writer:
        writer.add("train", 0, dataset.train.images)
        writer.add("val", 0, dataset.val.images)
    with pytest.raises(DataError):
        open_dataset(str(tmp_path / "out"), cache_dir=tmp_path / "cache")


def test_then_is_called_once_its_images_are_there(dataset: Dataset, tmp_path: Path) -> None:
    seen: list[tuple[bool, bool]] = []
    with TinyImageNetWriter(tmp_path, dataset, {"train": dataset.train, "val": dataset.val}) as writer:
        last = tmp_path / writer.name("train", 3)
        beside = threading.current_thread()
        writer.add(
            "train",
            0,
            dataset.train.images[:4],
            lambda: seen.append((last.is_file(), threading.current_thread() is not beside)),
        )
        writer.finish()
    assert seen == [(True, True)]


def test_what_cannot_be_written_is_one_line(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "train").write_text("in the way")
    with TinyImageNetWriter(tmp_path, dataset, {"train": dataset.train, "val": dataset.val}) as writer:
        writer.add("train", 0, dataset.train.images)
        with pytest.raises(RunError, match="cannot write") as caught:
            writer.finish()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "wnids.txt").exists()


def test_another_size_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    small = dataclasses.replace(
        dataset, val=dataclasses.replace(dataset.val, images=dataset.val.images[..., :32])
    )
    with pytest.raises(DataError, match="images of 32 px; expected 64"):
        TinyImageNetWriter(tmp_path, small, {"train": small.train, "val": small.val})
