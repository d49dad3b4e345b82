"""Any labelled images in directories, in the layout of torchvision's ``ImageFolder``."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

from robustbench_tin.data.base import Dataset
from robustbench_tin.data.cache import open_decoded
from robustbench_tin.data.class_folders import by_class, common_size, list_split, require_same_classes
from robustbench_tin.data.files import Directory, Files, Zip
from robustbench_tin.data.listing import (
    SUFFIXES,
    VAL_FOLDERS,
    Listing,
    Reason,
    is_image,
    val_folder,
    val_notes,
    within,
)
from robustbench_tin.data.source import OpenOptions, Source
from robustbench_tin.errors import DataError
from robustbench_tin.text import counted, printable

SIZE = 64


@dataclass(frozen=True)
class Folder(Source):
    """Your own images, as folder:PATH with PATH/train/CLASS/* and PATH/val/CLASS/*, or a zip of these.

    A directory without ``train``, with PATH/val/CLASS/* or PATH/CLASS/*, is only for evaluation. Images are
    read as in torchvision's ``ImageFolder``: at any depth below a class, with classes and images sorted by
    name; names that start with a dot are left out. They may be JPEG, PNG, BMP, WebP, PPM and TIFF of any
    size. If all are square and of one size, that size is kept; otherwise all are scaled to 64×64. There are
    no bounding boxes. If there is no ``val``, then ``valid``, ``validation`` or ``test`` is read in its
    place.
    """

    name: ClassVar[str] = "folder"
    takes_path: ClassVar[bool] = True

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """True if ``path`` has ``train`` and ``val``, or images in class folders, or is a zip file."""
        if path.is_file():
            return path.suffix.lower() == ".zip"
        if (path / "train").is_dir():
            return any((path / name).is_dir() for name in VAL_FOLDERS)
        return _has_classes(path / _measured_folder(path))

    def open(self, options: OpenOptions) -> Dataset:
        """Open it; decode it first if it is not in the cache.

        Raises:
            DataError: if it is missing or broken, or if train and val have different classes.
        """
        if self.path is None:
            raise DataError("data set 'folder' needs a path; expected folder:PATH")
        if self.path.is_dir() and not (self.path / "train").is_dir():
            return self._open_measured(self.path, options)
        decoded = open_decoded(self.name, _files(self.path), find_folder, options)
        return decoded.as_dataset(
            self.name,
            self.path,
        )

    def _open_measured(self, path: Path, options: OpenOptions) -> Dataset:
        """Open a directory without training images."""
        below = _measured_folder(path)
        files = Directory(path, [below] if below else None)
        decoded = open_decoded(
            self.name, files, lambda files: _find_measured(files, below), options, variant=f"measured {below}"
        )
        return decoded.as_dataset(
            self.name,
            path,
            to_train="put training images in train/CLASS/* and the others in val/CLASS/*",
        )


def _measured_folder(path: Path) -> str:
    """The folder with evaluation images; empty if class folders lie in the directory itself."""
    return next((name for name in VAL_FOLDERS if (path / name).is_dir()), "")


def _has_classes(path: Path) -> bool:
    """True if two folders or more contain images."""
    try:
        with os.scandir(path) as entries:
            folders = [entry.path for entry in entries if entry.is_dir() and entry.name[0] != "."]
        return sum(islice(filter(None, map(_has_images, folders)), 2)) == 2
    except OSError:
        return False


def _has_images(folder: str) -> bool:
    with os.scandir(folder) as entries:
        return any(is_image(entry.name) for entry in entries)


def _find_measured(files: Files, below: str) -> Listing:
    found = by_class(files, below)
    if len(found) < 2:
        raise DataError(
            f"'{files.location / below}' has images of {counted(len(found), 'class', 'classes')}; expected"
            f" train/CLASS/* and val/CLASS/*, or only CLASS/*, ending in {', '.join(SUFFIXES)}"
        )
    classes = tuple(sorted(found))
    val = list_split(found, classes)
    rest = files.names - set(val.names)
    return Listing(
        classes,
        tuple(printable(name) for name in classes),
        {"train": list_split({}, ()), "val": val},
        size=common_size(files, val.names) or SIZE,
        left_out={
            **files.left_out,
            Reason.OTHER_KIND: [name for name in rest if not is_image(name)],
            Reason.NO_CLASS: [name for name in rest if is_image(name)],
        },
        notes=("there are no training images: the data set is only for evaluation",),
    )


def find_folder(files: Files) -> Listing:
    """List ``train/CLASS/*`` and ``val/CLASS/*``, classes and images in ``ImageFolder``'s order.

    Raises:
        DataError: if a split is empty, or a class is in one split only.
    """
    below = {"train": "train", "val": val_folder(files.names)}
    splits = {split: by_class(files, folder) for split, folder in below.items()}
    for split, found in splits.items():
        if not found:
            raise DataError(
                f"'{files.location}/{below[split]}' has no images;"
                f" expected {below[split]}/CLASS/* ending in {', '.join(SUFFIXES)}"
            )
    require_same_classes(files, splits, below)
    classes = tuple(sorted(splits["train"]))
    listings = {split: list_split(found, classes) for split, found in splits.items()}
    names = [name for listing in listings.values() for name in listing.names]
    tops = tuple(f"{folder}/" for folder in below.values())
    rest = [name for name in files.names - set(names) if name.startswith(tops)]
    left_out = {
        **within(files.left_out, tops),
        Reason.OTHER_KIND: [name for name in rest if not is_image(name)],
        Reason.NO_CLASS: [name for name in rest if is_image(name)],
    }
    return Listing(
        classes,
        tuple(printable(name) for name in classes),
        listings,
        size=common_size(files, names) or SIZE,
        left_out=left_out,
        notes=tuple(val_notes(below["val"])),
    )


def _files(path: Path) -> Files:
    tops = ("train", *VAL_FOLDERS)
    if path.is_dir():
        return Directory(path, tops)
    if path.is_file():
        expected = (
            "no train/CLASS/* and val/CLASS/*; expected a zip of such folders, or tiny-imagenet-200.zip"
        )
        return Zip(path, _root, tops, expected)
    raise DataError(f"no images at '{path}': no such directory; expected one with train/CLASS/*")


def _root(names: Collection[str]) -> str | None:
    """The shortest prefix below which there are both a ``train`` and a ``val`` folder."""
    roots: dict[str, set[str]] = defaultdict(set)
    for name in names:
        folders = name.split("/")[:-1]
        for split in {"train", *VAL_FOLDERS} & set(folders):
            place = folders.index(split)
            roots["/".join([*folders[:place], ""])].add(split)
    whole = [root for root, splits in roots.items() if "train" in splits and len(splits) > 1]
    return min(whole, key=len, default=None)
