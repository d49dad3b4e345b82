"""Images that a data set leaves out are counted; everything that ImageFolder reads is read."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import encoded, picture, save
from PIL import Image

from robustbench_tin.data import Dataset, open_dataset
from robustbench_tin.errors import DataError

NAMES = (
    *("a.jpg", "b.JPEG", "c.png", "d.ppm", "e.bmp", "f.pgm", "g.tif", "h.TIFF", "i.webp"),
    *("more/a.png", "more/deep/er/z.png", "more.png", "more-/a.png", "A.png", "x.jpg/inner.png"),
)


def draw_folder(root: Path, names: tuple[str, ...] = ("a.png", "b.png"), splits: str = "train val") -> Path:
    for split in splits.split():
        for c, wnid in enumerate(("dog", "Cat", "cow")):
            for i, name in enumerate(names):
                mode = "L" if name.endswith("pgm") else "RGB"
                save(root / split / wnid / name, picture(100 * c + i, mode=mode))
    return root


def pack(root: Path, target: Path, top: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, f"{top}{path.relative_to(root)}")
    return target


def same(one: Dataset, other: Dataset) -> bool:
    return one.fingerprint == other.fingerprint and one.val.ids == other.val.ids


def test_a_folder_is_read_as_torchvision_reads_it(tmp_path: Path, cache: Path) -> None:
    folder = pytest.importorskip("torchvision.datasets").ImageFolder
    root = draw_folder(tmp_path / "mine", NAMES)
    (tmp_path / "elsewhere").mkdir()
    save(tmp_path / "elsewhere/y.png", picture(7))
    for split in ("train", "val"):
        (root / split / "cow/linked").symlink_to(tmp_path / "elsewhere")
        (root / split / "cow/link.png").symlink_to(tmp_path / "elsewhere/y.png")
    dataset = open_dataset(str(root), cache_dir=cache)
    for split in ("train", "val"):
        expected = folder(root / split)
        ours = getattr(dataset, split)
        assert list(dataset.classes) == expected.classes == ["Cat", "cow", "dog"]
        assert [str(root / name) for name in ours.ids] == [path for path, _ in expected.samples]
        assert ours.labels.tolist() == expected.targets
        for image, (picture_, _) in zip(ours.images, expected, strict=True):
            np.testing.assert_array_equal(image, np.asarray(picture_).transpose(2, 0, 1))
    assert dataset.notes == ()


def test_what_is_left_out_is_counted_in_one_note(tmp_path: Path, cache: Path) -> None:
    root = draw_folder(tmp_path / "mine")
    save(root / "train/stray.png", picture(1))
    (root / "train/dog/.ipynb_checkpoints").mkdir()
    for i in range(4):
        (root / f"val/dog/label{i}.txt").touch()
    (root / "train/dog/anim.gif").touch()
    (root / "val/cow/round").symlink_to(root / "val")
    (root / "val/cow/broken.png").touch()
    (root / "readme.md").touch()
    for _ in range(2):  # decoded, then from the cache
        dataset = open_dataset(str(root), cache_dir=cache, skip_broken=True)
        assert dataset.notes == (
            "left out 1 unreadable val image: val/cow/broken.png;"
            " 1 hidden file: train/dog/.ipynb_checkpoints;"
            " 1 link to a folder above it: val/cow/round;"
            " 5 files without an image's suffix: train/dog/anim.gif, val/dog/label0.txt,"
            " val/dog/label1.txt, …;"
            " 1 file in no class folder: train/stray.png",
        )
        assert len(dataset.train) == len(dataset.val) == 6


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_other_names_of_the_validation_folder(tmp_path: Path, cache: Path, name: str) -> None:
    expected = open_dataset(str(draw_folder(tmp_path / "a")), cache_dir=cache)
    root = draw_folder(tmp_path / "b", splits=f"train {name}")
    dataset = open_dataset(str(root), cache_dir=cache)
    assert dataset.fingerprint == expected.fingerprint
    assert dataset.notes == (f"the validation images are those in {name}/",)


@pytest.mark.parametrize("top", ["", "mine/", "a/b/"])
def test_a_zipped_folder_is_the_same_data_set(tmp_path: Path, cache: Path, top: str) -> None:
    root = draw_folder(tmp_path / "mine", NAMES)
    packed = open_dataset(str(pack(root, tmp_path / "mine.zip", top)), cache_dir=cache)
    assert same(packed, open_dataset(str(root), cache_dir=cache))
    assert packed.name == "folder"
    assert packed.notes == ()


def test_a_zip_of_macos_and_one_of_windows(tmp_path: Path, cache: Path) -> None:
    root = draw_folder(tmp_path / "mine")
    expected = open_dataset(str(root), cache_dir=cache)
    mac = pack(root, tmp_path / "mac.zip", "mine/")
    with zipfile.ZipFile(mac, "a") as archive:
        archive.writestr("__MACOSX/mine/train/dog/._a.png", b"Mac OS X")
        archive.writestr("mine/train/.DS_Store", b"")
        archive.writestr("mine/inner.zip", b"")
    dataset = open_dataset(str(mac), cache_dir=cache)
    assert same(dataset, expected)
    assert dataset.notes == ("left out 2 hidden files: __MACOSX/mine/train/dog/._a.png, train/.DS_Store",)
    data = pack(root, tmp_path / "windows.zip", "mine/").read_bytes()
    for path in sorted(root.rglob("*.png")):
        name = f"mine/{path.relative_to(root)}"
        data = data.replace(name.encode(), name.replace("/", "\\").encode())
    (tmp_path / "windows.zip").write_bytes(data)
    assert same(open_dataset(str(tmp_path / "windows.zip"), cache_dir=cache), expected)


def test_a_zip_of_something_else_is_one_line(tmp_path: Path, cache: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("photos/a.png", encoded(picture(1), "PNG"))
    with pytest.raises(DataError, match=r"holds no train/CLASS/\* and val/CLASS/\*"):
        open_dataset(str(tmp_path / "other.zip"), cache_dir=cache)


@pytest.mark.parametrize("kind", ["pipe", "pipe's link", "device", "loop", "sparse", "pixels"])
def test_what_cannot_be_read_is_named_or_left_out(tmp_path: Path, cache: Path, kind: str) -> None:
    root = draw_folder(tmp_path / "mine")
    place = root / "train/dog/x.png"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "pipe's link":
        os.mkfifo(tmp_path / "pipe")
        place.symlink_to(tmp_path / "pipe")
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "loop":
        place.symlink_to(place)
    elif kind == "sparse":
        place.touch()
        os.truncate(place, 1 << 40)
    else:
        Image.new("1", (12_000, 12_000)).save(place)
    with pytest.raises(DataError, match=r"x\.png' .*--skip-broken"):
        open_dataset(str(root), cache_dir=cache)
    dataset = open_dataset(str(root), cache_dir=cache, skip_broken=True)
    assert dataset.notes == ("left out 1 unreadable train image: train/dog/x.png",)
    assert len(dataset.train) == 6


def test_a_file_for_a_split(tmp_path: Path, cache: Path) -> None:
    root = draw_folder(tmp_path / "mine", splits="train test")
    (root / "val").touch()
    assert open_dataset(f"folder:{root}", cache_dir=cache).notes == (
        "the validation images are those in test/",
    )


def test_links_that_lead_round_end(tmp_path: Path, cache: Path) -> None:
    root = draw_folder(tmp_path / "mine")
    (root / "train/dog/there").symlink_to(root / "train/cow")
    (root / "train/cow/back").symlink_to(root / "train/dog")
    (root / "train/Cat/above").symlink_to(tmp_path)
    (note,) = open_dataset(str(root), cache_dir=cache).notes
    assert note == (
        "left out 3 links to a folder above them: train/Cat/above, train/cow/back/there, train/dog/there/back"
    )


def test_a_class_folder_whose_name_is_no_utf8(tmp_path: Path, cache: Path) -> None:
    root = draw_folder(tmp_path / "mine")
    for split in ("train", "val"):
        shutil.move(root / split / "dog", os.fsdecode(os.fsencode(root / split) + b"/d\xf6g"))
    dataset = open_dataset(str(root), cache_dir=cache)
    assert dataset.classes == ("Cat", "cow", "d\udcf6g")
    assert "\udcf6" not in dataset.class_names[2]
    assert len(dataset.train) == 6
