"""The real Tiny ImageNet; needs ROBUST_TIN_DATA, a directory that holds tiny-imagenet-200."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustbench_tin.data import Dataset, Split, open_dataset, subset

DATA = os.environ.get("ROBUST_TIN_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="ROBUST_TIN_DATA names no directory with tiny-imagenet-200")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(str(DATA), cache_dir=tmp_path_factory.mktemp("cache"))


def degenerate(split: Split) -> int:
    assert split.boxes is not None
    x0, y0, x1, y1 = split.boxes.T
    return int(((x1 <= x0) | (y1 <= y0)).sum())


def test_counts_and_boxes(dataset: Dataset) -> None:
    assert len(dataset.classes) == len(set(dataset.classes)) == 200
    assert dataset.class_names[dataset.classes.index("n01443537")] == "goldfish, Carassius auratus"
    assert set(np.bincount(dataset.val.labels)) == {50}
    assert len(set(np.bincount(dataset.train.labels))) == 1
    assert degenerate(dataset.val) == 41
    # the whole set, and the first fifth of it
    assert (len(dataset.train), degenerate(dataset.train)) in ((100_000, 434), (20_000, 91))
    for split in (dataset.train, dataset.val):
        assert split.boxes is not None
        assert split.boxes.min() >= 0
        assert split.boxes.max() <= 63


def test_images_are_those_of_the_files(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.val):
        for row in range(0, len(split), len(split) // 50):
            name = (split.ids or ())[row]
            image = Image.open(Path(str(DATA)) / "tiny-imagenet-200" / name).convert("RGB")
            np.testing.assert_array_equal(split.images[row], np.asarray(image).transpose(2, 0, 1))


def test_grayscale_images_have_three_equal_channels(dataset: Dataset) -> None:
    images = dataset.val.images
    gray = (images[:, 0] == images[:, 1]).all(axis=(1, 2)) & (images[:, 0] == images[:, 2]).all(axis=(1, 2))
    assert gray.sum() >= 168  # that many are stored so


def test_a_part_is_small_and_stratified(dataset: Dataset) -> None:
    part = subset(dataset, classes=10, train_per_class=20, eval_images=100)
    assert np.bincount(part.train.labels).tolist() == [20] * 10
    assert np.bincount(part.val.labels).tolist() == [10] * 10
    assert set(part.classes) <= set(subset(dataset, classes=20).classes)
