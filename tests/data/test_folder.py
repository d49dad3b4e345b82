from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import picture, save
from PIL import Image

from robustbench_tin import bench
from robustbench_tin.data import open_dataset
from robustbench_tin.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three and two images, of any size and kind."""
    root = tmp_path / "mine"
    for c, name in enumerate(("dog", "cat")):
        save(root / f"train/{name}/a.PNG", picture(10 * c, (80, 100)))
        save(root / f"train/{name}/b.jpeg", picture(10 * c + 1, (300, 90)))
        save(root / f"train/{name}/c.bmp", picture(10 * c + 2, (20, 20)))
        save(root / f"val/{name}/d.webp", picture(10 * c + 3, (64, 64)))
        save(root / f"val/{name}/e.jpg", picture(10 * c + 4, (64, 63)))
        (root / f"train/{name}/notes.txt").write_text("not an image")
        (root / f"train/{name}/._a.png").write_text("nor is this")
    return root


def test_every_image_is_brought_to_one_size(folder: Path, cache: Path) -> None:
    dataset = open_dataset(f"folder:{folder}", cache_dir=cache)
    assert dataset.name == "folder"
    assert dataset.classes == dataset.class_names == ("cat", "dog")
    assert dataset.train.images.shape == (6, 3, 64, 64)
    assert dataset.val.images.shape == (4, 3, 64, 64)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.train.ids is not None
    assert dataset.train.ids[0] == "train/cat/a.PNG"
    assert dataset.train.boxes is None
    assert dataset.test is None
    assert dataset.notes == (
        "left out 2 hidden files: train/cat/._a.png, train/dog/._a.png;"
        " 2 files without an image's suffix: train/cat/notes.txt, train/dog/notes.txt",
    )


def test_a_common_square_size_is_kept(tmp_path: Path, cache: Path) -> None:
    for split in ("train", "val"):
        for name in ("a", "b"):
            save(tmp_path / split / name / "0.png", picture(hash((split, name)) % 1000, (48, 48)))
    dataset = open_dataset(str(tmp_path), cache_dir=cache)
    assert dataset.image_size == 48
    expected = np.asarray(Image.open(tmp_path / "train/a/0.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(dataset.train.images[0], expected)


def test_the_centre_is_what_remains(tmp_path: Path, cache: Path) -> None:
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, :100, 0], wide[:, 100:200, 1], wide[:, 200:, 2] = 255, 255, 255  # red, green, blue
    for split in ("train", "val"):
        save(tmp_path / split / "a/0.png", Image.fromarray(wide))
        save(tmp_path / split / "b/0.png", Image.fromarray(wide.transpose(1, 0, 2)))
    images = open_dataset(str(tmp_path), cache_dir=cache).train.images
    assert (images[:, 1, 2:-2, 2:-2] == 255).all()
    assert (images[:, 0, 2:-2, 2:-2] == 0).all()


def test_scaling_down_is_antialiased(tmp_path: Path, cache: Path) -> None:
    chequered = (np.indices((256, 300)).sum(axis=0) % 2 * 255).astype(np.uint8)
    for split in ("train", "val"):
        save(tmp_path / split / "a/0.png", Image.fromarray(chequered))
    images = open_dataset(str(tmp_path), cache_dir=cache).train.images
    assert np.abs(images.astype(int) - 128).max() <= 8


@pytest.mark.parametrize(
    ("split", "other"), [("train", "val"), ("val", "train")], ids=["missing in val", "missing in train"]
)
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_class_must_be_in_both_splits(folder: Path, cache: Path, split: str, other: str, how: str) -> None:
    shutil.rmtree(folder / other / "cat")
    if how == "empty":
        (folder / other / "cat").mkdir()
    with pytest.raises(DataError, match=f"class 'cat' has images in '.*{split}' but none in {other};"):
        open_dataset(str(folder), cache_dir=cache)


def test_a_split_without_images(folder: Path, cache: Path) -> None:
    shutil.rmtree(folder / "val")
    with pytest.raises(DataError, match=r"/val' has no images; expected val/CLASS/\*"):
        open_dataset(f"folder:{folder}", cache_dir=cache)


@pytest.mark.parametrize("below", ["val", "test", "."])
def test_images_without_train_are_there_to_measure_on(folder: Path, cache: Path, below: str) -> None:
    whole = open_dataset(str(folder), cache_dir=cache)
    shutil.rmtree(folder / "train")
    place = folder
    if below == ".":
        place = folder / "val"
    elif below != "val":
        (folder / "val").rename(folder / below)
    dataset = open_dataset(str(place), cache_dir=cache)
    assert dataset.classes == whole.classes
    assert dataset.val.labels.tolist() == whole.val.labels.tolist()
    assert np.array_equal(dataset.val.images, whole.val.images)
    assert len(dataset.train) == 0
    assert "there are no training images: the data set is only for evaluation" in dataset.notes
    with pytest.raises(DataError, match=r"no training images.*put training images in train/CLASS/\*"):
        bench(models="timm:test_resnet", data=str(place), eps="0", out=folder / "run")


@pytest.mark.parametrize("explicit", [False, True])
def test_one_class_is_no_data_set(folder: Path, cache: Path, explicit: bool) -> None:
    shutil.rmtree(folder / "train")
    shutil.rmtree(folder / "val/dog")
    told = "has images of 1 class; expected train" if explicit else "has no known layout"
    with pytest.raises(DataError, match=told):
        open_dataset(f"folder:{folder}" if explicit else str(folder), cache_dir=cache)


def test_a_broken_image_is_named_or_left_out(folder: Path, cache: Path) -> None:
    path = folder / "train/cat/b.jpeg"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"train/cat/b\.jpeg' cannot be decoded .*--skip-broken"):
        open_dataset(str(folder), cache_dir=cache)
    dataset = open_dataset(str(folder), cache_dir=cache, skip_broken=True)
    assert dataset.train.ids == [
        f"train/{name}" for name in ("cat/a.PNG", "cat/c.bmp", "dog/a.PNG", "dog/b.jpeg", "dog/c.bmp")
    ]
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 1]
    (note,) = dataset.notes
    assert note.startswith("left out 1 unreadable train image: train/cat/b.jpeg; 2 hidden files: ")


def test_a_class_that_lost_all_its_images(folder: Path, cache: Path) -> None:
    for path in (folder / "val/dog").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="class 'dog' has no readable val image"):
        open_dataset(str(folder), cache_dir=cache, skip_broken=True)


def test_a_link_to_nowhere_is_a_broken_image(folder: Path, cache: Path) -> None:
    (folder / "val/cat/z.png").symlink_to(folder / "gone.png")
    with pytest.raises(DataError, match=r"val/cat/z\.png' cannot be read \(No such file"):
        open_dataset(str(folder), cache_dir=cache)


def test_no_path_and_no_directory(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs a path; expected folder:PATH"):
        open_dataset("folder", cache_dir=cache)
    with pytest.raises(DataError, match="no such directory"):
        open_dataset(f"folder:{tmp_path / 'gone'}", cache_dir=cache)
