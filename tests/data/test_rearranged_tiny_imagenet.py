"""Tiny ImageNet as people rearrange it, and text files in every encoding and size."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import VAL, WNIDS, draw_tiny_imagenet, pack

from robustbench_tin.data import Dataset, open_dataset
from robustbench_tin.errors import DataError

FORMS = ("val/{wnid}/{file}", "val/{wnid}/images/{file}", "val/images/{wnid}/{file}")


def wnid_of(number: int) -> str:
    return WNIDS[number % len(WNIDS)]


def rearrange(root: Path, form: str, *, copied: bool = False) -> None:
    for number in range(len(WNIDS) * VAL):
        file = f"val_{number}.JPEG"
        target = root / form.format(wnid=wnid_of(number), file=file)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "val/images" / file, target)
        if not copied:
            (root / "val/images" / file).unlink()


def by_image(dataset: Dataset) -> dict[bytes, str]:
    """The class of each validation image by its content: right in every order."""
    return {
        image.tobytes(): dataset.classes[label]
        for image, label in zip(dataset.val.images, dataset.val.labels, strict=True)
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [False, True], ids=["directory", "zip"])
def test_class_folders_with_annotations_are_the_same_data_set(
    tiny: Path, tmp_path: Path, cache: Path, form: str, zipped: bool
) -> None:
    before = open_dataset(str(tiny), cache_dir=cache)
    rearrange(tiny, form)
    data = pack(tiny, tmp_path / "set.zip") if zipped else tiny
    after = open_dataset(str(data), cache_dir=cache)
    assert after.fingerprint == before.fingerprint
    assert after.notes == before.notes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("folder", ["val", "valid", "validation", "test"])
def test_class_folders_without_annotations(tiny: Path, cache: Path, form: str, folder: str) -> None:
    before = open_dataset(str(tiny), cache_dir=cache)
    rearrange(tiny, form)
    (tiny / "val/val_annotations.txt").unlink()
    if folder == "test":
        shutil.rmtree(tiny / "test")
    (tiny / "val").rename(tiny / folder)
    after = open_dataset(str(tiny), cache_dir=cache)
    assert after.classes == before.classes
    np.testing.assert_array_equal(after.val.images, before.val.images)
    np.testing.assert_array_equal(after.val.labels, before.val.labels)
    assert after.val.boxes is not None
    assert (after.val.boxes == -1).all()
    assert (f"the validation images are those in {folder}/" in after.notes) == (folder != "val")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("annotated", [False, True])
def test_without_wnids_the_folders_are_the_classes(
    tiny: Path, cache: Path, form: str, annotated: bool
) -> None:
    before = open_dataset(str(tiny), cache_dir=cache)
    rearrange(tiny, form)
    (tiny / "wnids.txt").unlink()
    if not annotated:
        (tiny / "val/val_annotations.txt").unlink()
    after = open_dataset(str(tiny), cache_dir=cache)
    assert after.classes == tuple(sorted(WNIDS))
    assert by_image(after) == by_image(before)
    assert after.train.boxes is not None
    assert any("there is no wnids.txt" in note for note in after.notes)


def test_copies_in_class_folders_are_left_out(tiny: Path, cache: Path) -> None:
    before = open_dataset(str(tiny), cache_dir=cache)
    rearrange(tiny, FORMS[0], copied=True)
    after = open_dataset(str(tiny), cache_dir=cache)
    assert after.fingerprint == before.fingerprint
    assert any("left out 12 second copies of images" in note for note in after.notes)


def test_folders_and_annotations_that_contradict_each_other(tiny: Path, cache: Path) -> None:
    rearrange(tiny, FORMS[0])
    (tiny / "val/n03/val_0.JPEG").rename(tiny / "val/n01/val_0.JPEG")
    with pytest.raises(DataError, match=r"in class folder 'n01', but .* gives class 'n03'"):
        open_dataset(str(tiny), cache_dir=cache)


def test_a_class_folder_of_no_class(tiny: Path, cache: Path) -> None:
    rearrange(tiny, FORMS[0])
    (tiny / "val/n03").rename(tiny / "val/n04")
    (tiny / "val/val_annotations.txt").unlink()
    with pytest.raises(DataError, match=r"val/n04' is not a class in wnids\.txt"):
        open_dataset(str(tiny), cache_dir=cache)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_files_in_other_encodings(tmp_path: Path, cache: Path, encoding: str) -> None:
    before = open_dataset(str(draw_tiny_imagenet(tmp_path / "a")), cache_dir=cache)
    root = draw_tiny_imagenet(tmp_path / "b")
    for file in root.rglob("*.txt"):
        file.write_bytes(file.read_text().replace("\n", "\r\n").encode(encoding))
    after = open_dataset(str(root), cache_dir=cache)
    assert after.fingerprint == before.fingerprint
    assert after.class_names == before.class_names


@pytest.mark.parametrize("corner", [70_000, 2**31 - 1, 2**31, 99_999_999_999, 10**30, -(10**12)])
@pytest.mark.parametrize("at", range(4))
def test_far_corners_are_degenerate_boxes(tiny: Path, cache: Path, corner: int, at: int) -> None:
    box = [1, 2, 50, 51]
    box[at] = corner
    line = "\t".join(map(str, ("n01_0.JPEG", *box)))
    (tiny / "train/n01/n01_boxes.txt").write_text(line + "\n")
    dataset = open_dataset(str(tiny), cache_dir=cache)
    assert dataset.train.boxes is not None
    x0, y0, x1, y1 = dataset.train.boxes[5].tolist()
    assert x1 <= x0 or y1 <= y0
    assert any("5 of 15 train images have a degenerate bounding box" in note for note in dataset.notes)


def bomb(tiny: Path, target: Path, name: str) -> Path:
    pack(tiny, target)
    with zipfile.ZipFile(target) as old:
        members = {member: old.read(member) for member in old.namelist() if not member.endswith("/" + name)}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for member, content in members.items():
            new.writestr(member, content)
        new.writestr(f"tiny-imagenet-200/{name}", b"n01\tb\n" * (3 << 20))
    return target


def test_a_text_file_that_images_can_do_without_is_left_out_if_it_is_huge(
    tiny: Path, tmp_path: Path, cache: Path
) -> None:
    for name in ("words.txt", "train/n01/n01_boxes.txt"):
        dataset = open_dataset(str(bomb(tiny, tmp_path / "set.zip", name)), cache_dir=cache)
        assert any(f"1 text file that is too large: {name}" in note for note in dataset.notes)
        if name == "words.txt":
            assert dataset.class_names == WNIDS


@pytest.mark.parametrize("name", ["wnids.txt", "val/val_annotations.txt"])
def test_a_huge_text_file_that_is_needed_is_refused(
    tiny: Path, tmp_path: Path, cache: Path, name: str
) -> None:
    with pytest.raises(DataError, match=rf"{name}' is larger than 16 MiB"):
        open_dataset(str(bomb(tiny, tmp_path / "set.zip", name)), cache_dir=cache)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tiny: Path, tmp_path: Path, cache: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", method) as archive:
        for path in sorted(tiny.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(tiny))
    with pytest.raises(DataError, match=rf"compressed by method {method}, expected deflate"):
        open_dataset(str(tmp_path / "set.zip"), cache_dir=cache)
