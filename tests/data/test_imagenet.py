from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_sets import picture, save
from PIL import Image
from torchvision import transforms

from robustbench_tin.data import in_class_order, open_dataset
from robustbench_tin.errors import DataError, InvalidSettingError, UnknownNameError

# Goldfish, tench and hammerhead: numbers 1, 0 and 4 of the 1,000.
WNIDS = ("n01443537", "n01440764", "n01494475")
SIZES = [(40, 30), (31, 64), (48, 48), (24, 25)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of four images each, of different sizes."""
    place = tmp_path / "ilsvrc"
    for c, wnid in enumerate(WNIDS):
        for i, size in enumerate(SIZES):
            save(place / f"val/{wnid}/ILSVRC2012_val_{i:08}.JPEG", picture(10 * c + i, size))
    return place


def test_images_are_those_of_torchvision_to_the_bit(root: Path, cache: Path) -> None:
    dataset = open_dataset(f"imagenet:{root},size=32,crop=28", cache_dir=cache)
    usual = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28)])
    assert dataset.val.ids is not None
    for image, name in zip(dataset.val.images, dataset.val.ids, strict=True):
        expected = np.asarray(usual(Image.open(root / name).convert("RGB")))
        np.testing.assert_array_equal(image, expected.transpose(2, 0, 1))
    assert dataset.notes[0] == (
        "images are scaled to 32 pixels on the shorter side and cropped to 28×28 around the centre"
    )


def test_classes_are_sorted_and_named(root: Path, cache: Path) -> None:
    dataset = open_dataset(f"imagenet:{root},size=16,crop=16", cache_dir=cache)
    assert dataset.classes == ("n01440764", "n01443537", "n01494475")
    assert dataset.class_names[0].startswith("tench")
    assert dataset.val.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4

    (_, note) = dataset.notes
    assert note.startswith("there are 3 class folders, but ImageNet has 1,000: a model with 1,000 outputs")


def test_a_part_is_measured_on_the_models_own_numbers(root: Path, cache: Path) -> None:
    dataset = open_dataset(f"imagenet:{root},size=16,crop=16", cache_dir=cache)
    whole = in_class_order(dataset, None, outputs=1000)
    assert len(whole.classes) == 1000
    assert sorted(set(whole.val.labels.tolist())) == [0, 1, 4]
    assert in_class_order(dataset, None, outputs=3) is dataset


def test_the_flat_layout_and_224_pixels(root: Path, cache: Path) -> None:
    nested = open_dataset(f"imagenet:{root}", cache_dir=cache)
    assert nested.image_size == 224
    flat = open_dataset(f"imagenet:{root / 'val'}", cache_dir=cache)
    assert flat.fingerprint == nested.fingerprint


def test_other_settings_have_an_entry_of_their_own(root: Path, cache: Path) -> None:
    sizes = [open_dataset(f"imagenet:{root},size=32,crop={crop}", cache_dir=cache) for crop in (28, 32, 28)]
    assert [dataset.image_size for dataset in sizes] == [28, 32, 28]
    assert len([path for path in (cache / "decoded").iterdir() if path.is_dir()]) == 2


def test_training_images_are_read_if_asked_for(root: Path, cache: Path) -> None:
    given = f"imagenet:{root},size=16,crop=16"
    for wnid in WNIDS:
        save(root / f"train/{wnid}/{wnid}_1.JPEG", picture(7))
    dataset = open_dataset(given, cache_dir=cache)
    with pytest.raises(DataError, match=r"no training images here.* to train, give imagenet:.*,train=true"):
        dataset.require_train()
    assert len(open_dataset(f"{given},train=true", cache_dir=cache).train) == 3
    (root / "train" / WNIDS[0] / f"{WNIDS[0]}_1.JPEG").unlink()
    with pytest.raises(DataError, match=r"class 'n01443537' has images in .*val' but none in train"):
        open_dataset(f"{given},train=true", cache_dir=cache)


def test_a_folder_that_is_no_class_of_it_is_told(root: Path, cache: Path) -> None:
    (root / "val" / WNIDS[0]).rename(root / "val/goldfish")
    dataset = open_dataset(f"imagenet:{root},size=16,crop=16", cache_dir=cache)
    assert "'goldfish' is not an ImageNet class: labels number the folders" in dataset.notes[1]
    assert dataset.whole == ()


def test_images_outside_class_folders(tmp_path: Path, cache: Path) -> None:
    save(tmp_path / "val/ILSVRC2012_val_00000001.JPEG", picture(0))
    with pytest.raises(DataError, match=r"val' has no images in class folders; expected val/CLASS/"):
        open_dataset(f"imagenet:{tmp_path}", cache_dir=cache)


def test_only_train(tmp_path: Path, cache: Path) -> None:
    save(tmp_path / "train/n01440764/a.JPEG", picture(0))
    with pytest.raises(DataError, match="has train but no val; expected val/CLASS/"):
        open_dataset(f"imagenet:{tmp_path}", cache_dir=cache)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ("size=16,crop=17", InvalidSettingError, "size=16 and crop=17; expected 8 to 4096 pixels"),
        ("size=many", InvalidSettingError, "got size=many; expected a whole number"),
        ("train=perhaps", InvalidSettingError, "got train=perhaps; expected true or false"),
        ("sise=16", UnknownNameError, "unknown setting 'sise' of data set 'imagenet'; did you mean 'size'"),
        ("size=16,size=17", InvalidSettingError, "got size twice"),
    ],
)
def test_settings_that_do_not_fit(
    root: Path, cache: Path, settings: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        open_dataset(f"imagenet:{root},{settings}", cache_dir=cache)


def test_a_path_may_have_commas_and_equals_signs(root: Path, cache: Path) -> None:
    odd = root.rename(root.parent / "a,size=9")
    assert open_dataset(f"imagenet:{odd},size=16,crop=16", cache_dir=cache).image_size == 16
    assert open_dataset(f"imagenet:{odd}", cache_dir=cache).image_size == 224
