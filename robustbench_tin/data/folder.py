"""Any labelled images in directories, laid out as torchvision's ``ImageFolder`` expects them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from robustbench_tin.data.base import Dataset
from robustbench_tin.data.cache import open_decoded
from robustbench_tin.data.decode import image_size
from robustbench_tin.data.files import Directory, Files
from robustbench_tin.data.listing import Listing, SplitListing
from robustbench_tin.data.source import OpenOptions, Source
from robustbench_tin.errors import DataError

SIZE = 64
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class Folder(Source):
    """Your own images, as folder:PATH with PATH/train/CLASS/* and PATH/val/CLASS/*.

    JPEG, PNG, BMP and WebP of any size; all are scaled to 64×64, unless they are all square and of one
    size, which is then kept. There are no bounding boxes.
    """

    name: ClassVar[str] = "folder"
    takes_path: ClassVar[bool] = True

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether ``path`` has a ``train`` and a ``val`` directory."""
        return (path / "train").is_dir() and (path / "val").is_dir()

    def open(self, options: OpenOptions) -> Dataset:
        """Open it, decoding what is not in the cache yet.

        Raises:
            DataError: where it is missing or broken, or where train and val differ in their classes.
        """
        if self.path is None:
            raise DataError("data set 'folder' needs a path; expected folder:PATH")
        if not self.path.is_dir():
            raise DataError(
                f"no images at '{self.path}': there is no such directory; expected train/CLASS/* in it"
            )
        files = Directory(self.path, tops=("train", "val"))
        decoded = open_decoded(self.name, files, find_folder, options)
        return Dataset(
            name=self.name,
            source=str(self.path),
            classes=decoded.classes,
            class_names=decoded.class_names,
            train=decoded.splits["train"],
            val=decoded.splits["val"],
            fingerprint=decoded.fingerprint,
            notes=tuple(decoded.broken_notes()),
        )


def find_folder(files: Files) -> Listing:
    """List ``train/CLASS/*`` and ``val/CLASS/*``, classes and images sorted by name.

    Raises:
        DataError: where a split is empty, or a class is in one split only.
    """
    splits = {split: _by_class(files, split) for split in ("train", "val")}
    for split, found in splits.items():
        if not found:
            raise DataError(
                f"'{files.location}/{split}' has no images;"
                f" expected {split}/CLASS/* ending in {', '.join(SUFFIXES)}"
            )
    for split, other in (("train", "val"), ("val", "train")):
        for name in sorted(splits[split].keys() - splits[other].keys()):
            raise DataError(
                f"class '{name}' has images in '{files.location}/{split}' but none in {other};"
                f" add {other}/{name}/* or remove {split}/{name}"
            )
    classes = tuple(sorted(splits["train"]))
    listings = {split: _list_split(found, classes) for split, found in splits.items()}
    names = [name for listing in listings.values() for name in listing.names]
    return Listing(classes, classes, listings, size=_common_size(files, names) or SIZE)


def _by_class(files: Files, split: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in files.names:
        top, *middle, file_name = name.split("/")
        if top == split and len(middle) == 1 and file_name.lower().endswith(SUFFIXES):
            found[middle[0]].append(name)
    return found


def _list_split(found: dict[str, list[str]], classes: tuple[str, ...]) -> SplitListing:
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        names += sorted(found[name])
        labels += [label] * len(found[name])
    return SplitListing(names, labels)


def _common_size(files: Files, names: list[str]) -> int | None:
    """The side that all readable images share, if they are square; else None."""
    common: int | None = None
    for name in names:
        try:
            size = image_size(files.read(name))
        except OSError:
            size = None
        if size is None:  # broken: decoding will say so
            continue
        width, height = size
        if width != height or common not in (None, width):
            return None
        common = width
    return common
