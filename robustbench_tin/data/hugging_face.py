"""Data sets of the Hugging Face Hub, or saved by its library to a directory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from robustbench_tin.data.base import Dataset
from robustbench_tin.data.cache import open_decoded
from robustbench_tin.data.class_folders import common_size
from robustbench_tin.data.files import MOST_IMAGE, Directory
from robustbench_tin.data.folder import SIZE
from robustbench_tin.data.imagenet import require_sizes
from robustbench_tin.data.listing import LeftOut, Listing, SplitListing
from robustbench_tin.data.source import OpenOptions, Source
from robustbench_tin.errors import FOREIGN, DataError, one_line
from robustbench_tin.files import TooLargeError, read_bytes
from robustbench_tin.options import either
from robustbench_tin.text import printable

MEASURED = ("validation", "valid", "val", "test", "dev")
"""Names of evaluation splits; the first one that exists and has labels is read."""


@dataclass(frozen=True)
class HuggingFace(Source):
    """A data set of the Hugging Face Hub, as hf:NAME, or one saved with save_to_disk, as hf:DIR; extra hf.

    The columns of images and labels are found by their type (``Image`` and ``ClassLabel``). If there are
    several, name them: ``hf:NAME,image=img,label=fine_label``. ``split=test`` chooses the evaluation split;
    the default is the first of validation and test that has labels. The split ``train``, if there is one, is
    for training; ``train=false`` leaves it out. ``config=`` is the Hub's. Square images of one size keep it.
    Others are scaled to 64×64 and cropped around the centre; ``size=256,crop=224`` works as for ``imagenet``.
    """

    takes_path: ClassVar[bool] = True
    by_name: ClassVar[bool] = True

    split: str | None = None
    image: str | None = None
    label: str | None = None
    config: str | None = None
    size: int | None = None
    crop: int | None = None
    train: bool = True

    def __post_init__(self) -> None:
        if self._sizes is not None:
            require_sizes(self.name, *self._sizes)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """True if ``path`` is a directory written by ``save_to_disk``."""
        return any((path / name).is_file() for name in _SAVED)

    def open(self, options: OpenOptions) -> Dataset:
        """Open it; download and decode it first if it is not in the cache.

        Raises:
            DataError: if it cannot be loaded, or lacks the split or the columns.
        """
        if self.path is None:
            raise DataError("data set 'hf' needs a name; expected hf:NAME of the Hub, or hf:DIR")
        named = self.path.as_posix()
        splits = self._chosen(_loaded(self.path, self.config, self.split if not self.train else None))
        table = next(iter(splits.values()))
        image = _column(named, table, "image", self.image, "Image")
        label = _column(named, table, "label", self.label, "ClassLabel")
        rows = _Rows(self.path, splits, image, label)
        decoded = open_decoded(
            self.name,
            rows,
            lambda _: self._listing(rows),
            options,
            variant=f"{sorted(splits)} {image} {label} {self._sizes}",
        )
        return decoded.as_dataset(
            self.name,
            named,
            to_train="name a data set that has a split train, and leave train=false out",
        )

    @property
    def _sizes(self) -> tuple[int, int] | None:
        """The shorter side and the crop in pixels; None if neither is set."""
        if self.size is None and self.crop is None:
            return None
        side = self.size or self.crop or 0
        return side, self.crop or side

    def _chosen(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """The splits as ``val`` and, if there is one, ``train``."""
        assert self.path is not None
        held = f"'{self.path.as_posix()}' has the splits {', '.join(found)}"
        if self.split is not None:
            if self.split not in found:
                raise DataError(f"{held}, but not split={self.split}; expected one of them")
            name = self.split
        else:
            # Test splits of contests have no labels.
            named = [name for name in MEASURED if name in found and self._is_labelled(found[name])]
            if not named:
                raise DataError(
                    f"{held}; expected {either(MEASURED)} with labels, or name the evaluation split:"
                    f" hf:{self.path.as_posix()},split=NAME"
                )
            name = named[0]
        splits = {"val": found[name]}
        if self.train and "train" in found and name != "train":
            splits["train"] = found["train"]
        return splits

    def _is_labelled(self, table: Any) -> bool:
        columns = [self.label] if self.label else _columns(table, "ClassLabel")
        return not columns or columns[0] not in table.column_names or _has_labels(table, columns[0])

    def _listing(self, rows: _Rows) -> Listing:
        labels, classes = rows.labels()
        splits = {
            name: SplitListing([f"{name}/{row}" for row in range(len(numbers))], numbers)
            for name, numbers in labels.items()
        }
        notes = []
        shorter, side = self._sizes or (None, common_size(rows, rows.names))
        if side is None:
            side = SIZE
            notes.append(
                f"images differ in size or are not square: each is scaled to {SIZE} pixels on the shorter"
                " side and cropped around the centre; size= and crop= choose other sizes"
            )
        splits = {"train": SplitListing([], []), **splits}
        return Listing(
            classes,
            tuple(printable(name) for name in classes),
            splits,
            size=side,
            shorter=shorter,
            notes=tuple(notes),
        )


class _Rows:
    """The rows of a table as files, so that they are decoded like files.

    Args:
        path: the path or name that the user gave.
        splits: ``val``, and ``train`` if there is one.
        image: the column of images.
        label: the column of labels.
    """

    def __init__(self, path: Path, splits: Mapping[str, Any], image: str, label: str) -> None:
        from datasets import Image

        self._splits, self._image, self._label = splits, image, label
        self._images = {
            name: table.select_columns([image]).cast_column(image, Image(decode=False))
            for name, table in splits.items()
        }
        # A name of the Hub has no path; the location must not depend on the working directory.
        self.location = path.absolute() if path.exists() else Path("/huggingface.co/datasets", path)

    @property
    def stamp(self) -> str:
        """The library's own digests of the splits, and of the files of a directory."""
        parts = [f"{name} {table._fingerprint} {len(table)}" for name, table in self._splits.items()]
        parts += [Directory(self.location, None).stamp] if self.location.is_dir() else []
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    @property
    def names(self) -> KeysView[str]:
        """``val/0``, ``val/1`` and so on."""
        return {
            f"{name}/{row}": None for name, table in self._splits.items() for row in range(len(table))
        }.keys()

    @property
    def left_out(self) -> LeftOut:
        """An empty mapping: no rows are left out."""
        return {}

    def read(self, name: str, most: int = MOST_IMAGE) -> bytes:
        """The encoded image of a row."""
        split, _, row = name.partition("/")
        held = self._images[split][int(row)][self._image] or {}
        content: bytes | None = held.get("bytes")
        if content is None and held.get("path"):
            return read_bytes(held["path"], most)
        if content is None:
            raise OSError("the row has no image")
        if len(content) > most:
            raise TooLargeError(most)
        return content

    def labels(self) -> tuple[dict[str, list[int]], tuple[str, ...]]:
        """The labels of each split, and the classes.

        Raises:
            DataError: for rows without a label.
        """
        feature = next(iter(self._splits.values())).features[self._label]
        if type(feature).__name__ == "ClassLabel":
            names = tuple(map(str, feature.names))
            found = {name: _values(table, self._label) for name, table in self._splits.items()}
        else:
            held = {name: _values(table, self._label) for name, table in self._splits.items()}
            values = sorted({value for each in held.values() for value in each if value is not None})
            place = {value: index for index, value in enumerate(values)}
            names = tuple(map(str, values))
            found = {name: [place.get(value, -1) for value in each] for name, each in held.items()}
        for name, numbers in found.items():
            without = sum(number is None or number < 0 for number in numbers)
            if without or not numbers:
                told = f"{without:,} of {len(numbers):,} rows" if numbers else "no rows"
                raise DataError(
                    f"column '{self._label}' of '{self.location}' ({name}) has {told} without a label;"
                    " expected a labelled split: choose one with split="
                )
        return found, names


_SAVED = ("dataset_dict.json", "state.json")


def _loaded(path: Path, config: str | None, only: str | None) -> Mapping[str, Any]:
    """The tables of a data set by split."""
    try:
        import datasets
    except ImportError:
        raise DataError(
            "data set 'hf' needs the datasets library; install it with pip install 'robustbench-tin[hf]'"
        ) from None
    name = path.as_posix()
    try:
        if any((path / saved).is_file() for saved in _SAVED):
            found = datasets.load_from_disk(str(path))
        else:
            found = datasets.load_dataset(name, config, split=only)
    except FOREIGN as error:  # errors of the Hub, the disk and scripts have no common base
        raise DataError(
            f"data set 'hf:{name}' cannot be loaded ({one_line(error)}); expected a name of the Hub, or a"
            f" directory of save_to_disk: load_dataset('{name}').save_to_disk('DIR'), then hf:DIR"
        ) from error
    return found if isinstance(found, Mapping) else {only or str(found.split or "test"): found}


def _columns(table: Any, kind: str) -> list[str]:
    return [name for name, feature in table.features.items() if type(feature).__name__ == kind]


def _column(named: str, table: Any, setting: str, asked: str | None, kind: str) -> str:
    """The column of images or labels."""
    held = ", ".join(table.column_names)
    if asked is not None:
        if asked not in table.column_names:
            raise DataError(f"'{named}' has no column {setting}={asked}; expected one of {held}")
        if kind == "Image" and asked not in _columns(table, kind):
            raise DataError(f"column '{asked}' of '{named}' holds no images; expected one of the type Image")
        return asked
    found = _columns(table, kind)
    if len(found) != 1:
        told = f"the columns {', '.join(found)}" if found else "no column"
        raise DataError(
            f"'{named}' has {told} of the type {kind}; name one of {held} with hf:{named},{setting}=COLUMN"
        )
    return found[0]


def _values(table: Any, column: str) -> list[Any]:
    return list(table.select_columns([column])[:][column])


def _has_labels(table: Any, column: str) -> bool:
    values: Sequence[Any] | Iterable[Any] = _values(table, column)
    return any(isinstance(value, str) or (value is not None and int(value) >= 0) for value in values)
