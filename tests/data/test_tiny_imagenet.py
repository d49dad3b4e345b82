from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import TEST, TRAIN, VAL, WNIDS, encoded, pack, picture, save
from PIL import Image

from robustbench_tin.data import UNLABELLED, Dataset, open_dataset
from robustbench_tin.errors import DataError


def assert_same(one: Dataset, other: Dataset) -> None:
    assert one.fingerprint == other.fingerprint
    assert (one.classes, one.class_names) == (other.classes, other.class_names)
    for name in ("train", "val", "test"):
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        assert a.ids == b.ids


def test_labels_boxes_and_names_are_those_of_the_files(tiny: Path, cache: Path) -> None:
    dataset = open_dataset(str(tiny), cache_dir=cache)
    assert dataset.name == "tiny-imagenet"
    assert dataset.classes == WNIDS
    assert dataset.class_names == ("crane, lifting device", "goldfish, carp", "crane")
    assert dataset.image_size == 64
    assert dataset.train.labels.tolist() == [0] * TRAIN + [1] * TRAIN + [2] * TRAIN
    assert dataset.train.labels.dtype == np.int64
    assert dataset.train.boxes is not None
    assert dataset.train.boxes.dtype == np.int32
    assert dataset.train.boxes[TRAIN + 2].tolist() == [2, 1, 42, 60]
    assert dataset.val.labels.tolist() == [0, 1, 2] * VAL
    assert dataset.val.boxes is not None
    assert dataset.val.boxes[1].tolist() == [5, 6, 50, 51]
    assert dataset.val.ids is not None
    assert dataset.val.ids[10] == "val/images/val_10.JPEG"
    assert dataset.test is not None
    assert dataset.test.labels.tolist() == [UNLABELLED] * TEST
    assert dataset.test.boxes is None


def test_images_are_those_of_the_files(tiny: Path, cache: Path) -> None:
    dataset = open_dataset(str(tiny), cache_dir=cache)
    for split in (dataset.train, dataset.val, dataset.test):
        assert split is not None
        assert split.images.shape == (len(split), 3, 64, 64)
        assert split.images.dtype == np.uint8
        for image, name in zip(split.images, split.ids or (), strict=True):
            expected = np.asarray(Image.open(tiny / name).convert("RGB")).transpose(2, 0, 1)
            np.testing.assert_array_equal(image, expected)


def test_grayscale_is_read_as_three_equal_channels(tiny: Path, cache: Path) -> None:
    train = open_dataset(str(tiny), cache_dir=cache).train
    with Image.open(tiny / "train/n03/images/n03_0.JPEG") as image:
        assert image.mode == "L"
    assert (train.images[0] == train.images[0][:1]).all()
    assert not (train.images[1] == train.images[1][:1]).all()


def test_notes_count_what_is_short_and_degenerate(tiny: Path, cache: Path) -> None:
    notes = "\n".join(open_dataset(str(tiny), cache_dir=cache).notes)
    assert "15 of the 100,000 train images" in notes
    assert "12 of the 10,000 val images" in notes
    assert "1 of 12 val images have a degenerate bounding box" in notes


@pytest.mark.parametrize("folder", ["tiny-imagenet-200", "another/name"])
def test_a_zip_is_the_same_data_set(tiny: Path, tmp_path: Path, cache: Path, folder: str) -> None:
    packed = pack(tiny, tmp_path / "set.zip", folder)
    before = sorted(tmp_path.rglob("*.JPEG"))
    dataset = open_dataset(str(packed), cache_dir=cache)
    assert sorted(tmp_path.rglob("*.JPEG")) == before  # nothing was unpacked
    assert_same(dataset, open_dataset(str(tiny), cache_dir=cache))


@pytest.mark.parametrize("data", ["{root}", "{root}/..", "tiny-imagenet:{root}", "tiny-imagenet:{root}/.."])
def test_it_is_found_at_its_place_or_in_the_one_above(tiny: Path, cache: Path, data: str) -> None:
    assert len(open_dataset(data.format(root=tiny), cache_dir=cache).val) == len(WNIDS) * VAL


def test_test_images_boxes_and_words_are_optional(tiny: Path, cache: Path) -> None:
    shutil.rmtree(tiny / "test")
    (tiny / "words.txt").unlink()
    (tiny / "train/n01/n01_boxes.txt").unlink()
    dataset = open_dataset(str(tiny), cache_dir=cache)
    assert dataset.test is None
    assert dataset.class_names == WNIDS
    assert dataset.train.boxes is not None
    assert dataset.train.boxes[TRAIN : 2 * TRAIN].tolist() == [[-1] * 4] * TRAIN
    assert dataset.train.boxes[0].tolist() == [0, 0, 40, 60]


def test_a_broken_test_image_does_not_keep_train_and_val_shut(tiny: Path, cache: Path) -> None:
    before = open_dataset(str(tiny), cache_dir=cache).fingerprint
    (tiny / "test/images/test_1.JPEG").write_bytes(b"broken")
    dataset = open_dataset(str(tiny), cache_dir=cache)
    assert dataset.test is not None
    assert dataset.test.ids == ["test/images/test_0.JPEG", "test/images/test_2.JPEG"]
    assert any("1 unreadable test image: test/images/test_1.JPEG" in note for note in dataset.notes)
    assert dataset.fingerprint == before
    for path in (tiny / "test/images").iterdir():
        path.write_bytes(b"broken")
    for _ in range(2):  # decoded, then from the cache
        assert open_dataset(str(tiny), cache_dir=cache).test is None


def test_images_that_are_missing_are_done_without(tiny: Path, cache: Path) -> None:
    (tiny / "train/n01/images/n01_3.JPEG").unlink()
    (tiny / "val/images/val_2.JPEG").unlink()
    dataset = open_dataset(str(tiny), cache_dir=cache)
    assert np.bincount(dataset.train.labels).tolist() == [5, 4, 5]
    assert dataset.train.boxes is not None
    assert dataset.train.boxes[TRAIN + 3].tolist() == [4, 1, 44, 60]
    assert len(dataset.val) == len(WNIDS) * VAL - 1


def empty_class(root: Path) -> None:
    shutil.rmtree(root / "train/n02/images")


def without_wnids(root: Path) -> None:
    (root / "wnids.txt").unlink()


def blank_wnids(root: Path) -> None:
    (root / "wnids.txt").write_text("\n\n")


def without_annotations(root: Path) -> None:
    (root / "val/val_annotations.txt").unlink()


def malformed_annotations(root: Path) -> None:
    (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn01\t1\t2\t3\t4\nval_1.JPEG n01 1 2 3 4\n")


def words_for_numbers(root: Path) -> None:
    (root / "train/n01/n01_boxes.txt").write_text("n01_0.JPEG\t1\ttwo\t3\t4\n")


def unknown_class_in_val(root: Path) -> None:
    (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn99\t1\t2\t3\t4\n")


def unknown_class_in_train(root: Path) -> None:
    save(root / "train/n98/images/n98_0.JPEG", picture(0))


def without_val_images(root: Path) -> None:
    shutil.rmtree(root / "val/images")


def stray_val_image(root: Path) -> None:
    save(root / "val/images/mine.JPEG", picture(0))


def twice_in_val(root: Path) -> None:
    annotations = root / "val/val_annotations.txt"
    annotations.write_text(annotations.read_text() * 2)


def other_size(root: Path) -> None:
    save(root / "val/images/val_3.JPEG", picture(0, size=(32, 48)))


def half_an_image(root: Path) -> None:
    data = encoded(picture(7))
    (root / "train/n03/images/n03_2.JPEG").write_bytes(data[:-150])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty_class, r"class 'n02' has no training images"),
        (without_wnids, r"has no wnids\.txt"),
        (blank_wnids, r"wnids\.txt' is empty"),
        (without_annotations, r"has no val/val_annotations\.txt"),
        (malformed_annotations, r"line 2 of '.*val_annotations\.txt' is 'val_1"),
        (words_for_numbers, r"line 1 of '.*n01_boxes\.txt'.*expected 5 columns"),
        (unknown_class_in_val, r"val_0\.JPEG class 'n99', which is not in wnids\.txt"),
        (unknown_class_in_train, r"train/n98' is not a class in wnids\.txt"),
        (without_val_images, r"val/images' has none of the images"),
        (stray_val_image, r"mine\.JPEG' has no line in val_annotations\.txt"),
        (twice_in_val, r"lists an image twice"),
        (other_size, r"val_3\.JPEG' is 32×48 pixels, expected 64×64; .*--skip-broken"),
        (half_an_image, r"n03_2\.JPEG' cannot be decoded \(.*truncated.*\); .*--skip-broken"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True], ids=["directory", "zip"])
def test_what_is_wrong_is_said_in_a_line(
    tiny: Path, tmp_path: Path, cache: Path, damage: Callable[[Path], None], message: str, zipped: bool
) -> None:
    damage(tiny)
    data = pack(tiny, tmp_path / "set.zip") if zipped else tiny
    if zipped and damage is without_wnids:
        message = r"holds no wnids\.txt"
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(str(data), cache_dir=cache)
    assert "\n" not in str(caught.value)
    assert not list(cache.glob("decoded/tiny*/"))


def test_half_a_zip_is_refused(tiny_zip: Path, cache: Path) -> None:
    data = tiny_zip.read_bytes()
    for part in (data[: len(data) // 2], data[:-200], data[100:], b"", b"no zip at all"):
        tiny_zip.write_bytes(part)
        with pytest.raises(DataError, match=r"set|is not a complete zip file"):
            open_dataset(str(tiny_zip), cache_dir=cache)


def test_a_flipped_byte_in_a_zip_is_an_error_that_names_the_image(tiny_zip: Path, cache: Path) -> None:
    data = bytearray(tiny_zip.read_bytes())
    data[data.index(b"train/n01/images/n01_2.JPEG") + 300] ^= 0xFF
    tiny_zip.write_bytes(data)
    with pytest.raises(DataError, match=r"n01_2\.JPEG' cannot be read \(damaged.*--skip-broken"):
        open_dataset(str(tiny_zip), cache_dir=cache)
    dataset = open_dataset(str(tiny_zip), cache_dir=cache, skip_broken=True)
    assert len(dataset.train) == len(WNIDS) * TRAIN - 1


def test_a_path_that_is_not_there(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such path"):
        open_dataset(f"tiny-imagenet:{tmp_path / 'nowhere'}", cache_dir=cache)
