from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_tin.data import open_dataset, subset
from robustbench_tin.errors import DataError

DICE = np.random.default_rng(0)
IMAGES = DICE.integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "labels"), ("x", "y"), ("x_test", "y_test"), ("data", "labels"), ("X", "Y")],
)
@pytest.mark.parametrize("form", ["NCHW", "NHWC"])
def test_the_usual_names_and_forms(tmp_path: Path, cache: Path, images: str, labels: str, form: str) -> None:
    given = IMAGES if form == "NCHW" else IMAGES.transpose(0, 2, 3, 1)
    path = saved(tmp_path / "a.npz", **{images: given, labels: LABELS.astype(np.uint8)})
    dataset = open_dataset(f"npz:{path}", cache_dir=cache)
    np.testing.assert_array_equal(dataset.val.images, IMAGES)
    assert dataset.val.labels.tolist() == LABELS.tolist()
    assert dataset.classes == ("0", "1", "2")
    assert dataset.notes == ()
    assert len(dataset.train) == 0


def test_floats_become_the_bytes_they_were_made_of(tmp_path: Path, cache: Path) -> None:
    path = saved(tmp_path / "a.npz", x=(IMAGES / 255).astype(np.float32), y=LABELS[:, None])
    dataset = open_dataset(str(path), cache_dir=cache)  # recognised by its ending
    np.testing.assert_array_equal(dataset.val.images, IMAGES)
    assert dataset.notes == ()


def test_finer_floats_are_rounded_and_told(tmp_path: Path, cache: Path) -> None:
    fine = np.full((2, 4, 4, 3), 0.5, np.float64)
    dataset = open_dataset(f"npz:{saved(tmp_path / 'a.npz', x=fine, y=[0, 1])}", cache_dir=cache)
    assert set(np.unique(dataset.val.images)) == {128}  # 127.5, to the even one
    assert dataset.notes == (
        "images are rounded to 8 bits; from Python, evaluate(model, images, labels) keeps floats",
    )


@pytest.mark.parametrize("shape", [(6, 8, 8), (6, 8, 8, 1), (6, 1, 8, 8)])
def test_grayscale_is_repeated_and_told(tmp_path: Path, cache: Path, shape: tuple[int, ...]) -> None:
    gray = IMAGES[:, 0]
    path = saved(tmp_path / "a.npz", images=gray.reshape(shape), labels=LABELS)
    dataset = open_dataset(f"npz:{path}", cache_dir=cache)
    for channel in range(3):
        np.testing.assert_array_equal(dataset.val.images[:, channel], gray)
    assert dataset.notes == ("grayscale images are repeated to three channels",)


def test_training_images_and_names_of_classes(tmp_path: Path, cache: Path) -> None:
    path = saved(
        tmp_path / "mnist.npz",
        **{"x_train": IMAGES[:4], "y_train": LABELS[:4], "x_test": IMAGES[4:], "y_test": LABELS[4:]},
        class_names=np.array(["cat", "dog", "fox", "owl"]),
    )
    dataset = open_dataset(f"npz:{path}", cache_dir=cache)
    assert dataset.classes == ("cat", "dog", "fox", "owl")
    assert dataset.train.labels.tolist() == [0, 1, 2, 0]
    assert dataset.val.labels.tolist() == [1, 2]
    dataset.require_train()


def test_without_training_images_it_can_only_be_measured_on(tmp_path: Path, cache: Path) -> None:
    dataset = open_dataset(f"npz:{saved(tmp_path / 'a.npz', x=IMAGES, y=LABELS)}", cache_dir=cache)
    assert len(subset(dataset, classes=2, eval_images=3).val) == 3
    expected = "no training images here, so it is only for evaluation; to train, put x_train and"
    with pytest.raises(DataError, match=expected):
        dataset.require_train()
    with pytest.raises(DataError, match=expected):
        subset(dataset, train_per_class=1)


def test_a_changed_file_is_read_again(tmp_path: Path, cache: Path) -> None:
    path = saved(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    first = open_dataset(f"npz:{path}", cache_dir=cache)
    saved(path, x=IMAGES[:4], y=LABELS[:4])
    second = open_dataset(f"npz:{path}", cache_dir=cache)
    assert (len(second.val), first.fingerprint != second.fingerprint) == (4, True)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": IMAGES}, r"holds pixels; expected one of these pairs: images and labels, x and y"),
        ({"x": IMAGES}, "holds x; expected one of these pairs"),
        ({"x": IMAGES[:, :, :4], "y": LABELS}, r"shape \(6, 3, 4, 8\), which are not square; crop or pad"),
        ({"x": IMAGES[:, :2], "y": LABELS}, r"shape \(6, 2, 8, 8\); expected \(N, H, W, C\)"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, r"shape \(0, 3, 8, 8\); expected"),
        ({"x": IMAGES.astype(np.float32), "y": LABELS}, r"float32 from 0 to 25\d; expected uint8, or float"),
        ({"x": IMAGES.astype(np.int32), "y": LABELS}, "images of int32"),
        ({"x": IMAGES / np.nan, "y": LABELS}, "from nan to nan"),
        ({"x": IMAGES, "y": LABELS[:5]}, r"labels int64 of shape \(5,\); expected \(6,\), class indices"),
        ({"x": IMAGES, "y": LABELS - 1}, "labels from -1 to 1"),
        ({"x": IMAGES, "y": LABELS + 0.0}, "labels float64"),
        ({"x": np.array([None, 1]), "y": LABELS}, "cannot be read .*expected a NumPy file"),
        ({"x": IMAGES, "y": LABELS, "class_names": np.array(["a", "b"])}, "2 class_names; expected 3"),
        (
            {"x": IMAGES, "y": LABELS, "x_train": IMAGES[..., :4, :4], "y_train": LABELS},
            "training images of another size than its evaluation images",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, cache: Path, arrays: dict[str, Any], message: str
) -> None:
    path = saved(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"npz:{path}", cache_dir=cache)
    assert "\n" not in str(caught.value)


def test_objects_are_never_unpickled(tmp_path: Path, cache: Path) -> None:
    class Spy:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    path = saved(tmp_path / "a.npz", x=np.array([Spy()], dtype=object), y=LABELS)
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(f"npz:{path}", cache_dir=cache)
    assert not (tmp_path / "touched").exists()


def test_no_file_and_a_damaged_one(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match="expected npz:FILE"):
        open_dataset("npz", cache_dir=cache)
    with pytest.raises(DataError, match="no such file"):
        open_dataset(f"npz:{tmp_path / 'a.npz'}", cache_dir=cache)
    (tmp_path / "a.npz").write_bytes(b"PK\3\4 no archive")
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(f"npz:{tmp_path / 'a.npz'}", cache_dir=cache)
