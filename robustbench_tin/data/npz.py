"""Images and labels in a NumPy file (``.npz``), under their usual names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from robustbench_tin.data.array_cache import Arrays, open_arrays
from robustbench_tin.data.base import Dataset, Split
from robustbench_tin.data.source import OpenOptions, Source
from robustbench_tin.errors import DataError, one_line
from robustbench_tin.files import open_regular

MEASURED = (
    ("images", "labels"),
    ("x", "y"),
    ("x_test", "y_test"),
    ("data", "labels"),
    ("test_images", "test_labels"),
    ("val_images", "val_labels"),
)
"""Names of evaluation images and their labels; the first pair that exists is read."""
TRAINING = (("x_train", "y_train"), ("train_images", "train_labels"))
"""Names of training images and their labels."""

_SHAPES = "(N, H, W, C), (N, C, H, W) or (N, H, W), C 1 or 3"
_MOST_CLASSES = 100_000


@dataclass(frozen=True)
class Npz(Source):
    """Arrays in a NumPy file, as npz:FILE: images and labels, x and y, x_test and y_test, or data and labels.

    Images are uint8, or float in [0, 1], which is rounded to 8 bits: ``(N, H, W, C)``, ``(N, C, H, W)``, or
    grayscale ``(N, H, W)``, which is repeated to three channels. They must be square. Labels are class
    indices ``(N,)``. Training images are ``x_train`` and ``y_train``; without them, the data set is only for
    evaluation. ``class_names`` names the classes. Arrays of Python objects are never read.
    """

    takes_path: ClassVar[bool] = True

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """True if ``path`` is a file that ends in .npz."""
        return path.suffix.lower() == ".npz" and path.is_file()

    def open(self, options: OpenOptions) -> Dataset:
        """Open it; read it first if it is not in the cache.

        Raises:
            DataError: if it is missing or damaged, or lacks such arrays.
        """
        if self.path is None:
            raise DataError("data set 'npz' needs a file; expected npz:FILE")
        if not self.path.is_file():
            raise DataError(f"no arrays at '{self.path}': no such file; expected npz:FILE")
        path, status = self.path, self.path.stat()
        stamp = hashlib.blake2b(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
        decoded = open_arrays(self.name, path, stamp, lambda: _read(path), options)
        return decoded.as_dataset(
            self.name,
            path,
            to_train="put x_train and y_train into the file",
        )


def _read(path: Path) -> Arrays:
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as content:
            names = {name.lower(): name for name in content.files}
            pairs = {"train": _pair(names, TRAINING), "val": _pair(names, MEASURED)}
            found = {
                split: tuple(content[names[name]] for name in pair)
                for split, pair in pairs.items()
                if pair is not None
            }
            named = content[names["class_names"]] if "class_names" in names else None
    except Exception as error:  # a damaged file can make a foreign parser raise anything
        raise DataError(
            f"'{path}' cannot be read ({one_line(error)}); expected a NumPy file (np.savez) of numbers"
        ) from error
    if "val" not in found:
        pairs_read = ", ".join(" and ".join(pair) for pair in MEASURED)
        held = ", ".join(names.values()) or "nothing"
        raise DataError(f"'{path}' holds {held[:200]}; expected one of these pairs: {pairs_read}")
    notes: list[str] = []
    splits = {
        split: Split(_images(path, images, notes), _labels(path, labels, len(images)))
        for split, (images, labels) in found.items()
    }
    _require_alike(path, splits)
    count = 1 + max(int(split.labels.max()) for split in splits.values())
    return Arrays(_classes(path, named, count), splits, tuple(dict.fromkeys(notes)))


def _pair(names: Mapping[str, str], pairs: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    return next((pair for pair in pairs if all(name in names for name in pair)), None)


def _images(path: Path, images: npt.NDArray[Any], notes: list[str]) -> npt.NDArray[np.uint8]:
    """The images as uint8 ``(N, 3, H, H)``."""
    given = f"'{path}' has images of shape {images.shape}"
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise DataError(f"{given}; expected {_SHAPES}")
    if images.shape[2] != images.shape[3]:
        raise DataError(
            f"{given}, which are not square; crop or pad them, or measure them unchanged from Python:"
            " evaluate(model, images, labels)"
        )
    if images.shape[1] == 1:
        notes.append("grayscale images are repeated to three channels")
        images = np.repeat(images, 3, axis=1)
    return _as_bytes(path, images, notes)


def _as_bytes(path: Path, images: npt.NDArray[Any], notes: list[str]) -> npt.NDArray[np.uint8]:
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    if images.dtype.kind != "f" or not (low >= 0 and high <= 1):
        raise DataError(
            f"'{path}' has images of {images.dtype} from {low:g} to {high:g}; expected uint8, or float in"
            " [0, 1]"
        )
    rounded = np.empty(images.shape, np.uint8)
    exact = True
    for row, image in enumerate(images):
        levels = image.astype(np.float64) * 255
        rounded[row] = np.rint(levels)
        exact = exact and bool((np.abs(levels - rounded[row]) < 1e-2).all())
    if not exact:
        notes.append(
            "images are rounded to 8 bits; from Python, evaluate(model, images, labels) keeps floats"
        )
    return rounded


def _labels(path: Path, labels: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    if labels.shape == (count, 1):  # Keras stores CIFAR's labels this way
        labels = labels[:, 0]
    expected = f"expected ({count},), class indices from 0"
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(f"'{path}' has labels {labels.dtype} of shape {labels.shape}; {expected}")
    numbers = labels.astype(np.int64)
    if not (numbers.min() >= 0 and numbers.max() < _MOST_CLASSES):
        raise DataError(f"'{path}' has labels from {numbers.min()} to {numbers.max()}; {expected}")
    return numbers


def _require_alike(path: Path, splits: Mapping[str, Split]) -> None:
    sides = {split.images.shape[-1] for split in splits.values()}
    if len(sides) > 1:
        raise DataError(
            f"'{path}' has training images of another size than its evaluation images"
            f" ({' and '.join(f'{side} px' for side in sorted(sides))}); expected one size"
        )


def _classes(path: Path, named: npt.NDArray[Any] | None, count: int) -> tuple[str, ...]:
    if named is None:
        return tuple(map(str, range(count)))
    names = tuple(str(name) for name in named.ravel())
    if named.dtype.kind != "U" or len(names) < count or len(set(names)) < len(names):
        raise DataError(f"'{path}' has {len(names)} class_names; expected {count} different texts or more")
    return names
