"""Tiny ImageNet as published: 200 classes, 64×64 pixels, one bounding box per image.

Le and Yang, "Tiny ImageNet Visual Recognition Challenge", Stanford CS 231N, 2015.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from robustbench_tin.data.base import UNLABELLED, Dataset, Split
from robustbench_tin.data.cache import open_decoded
from robustbench_tin.data.cache_entry import Decoded
from robustbench_tin.data.download import fetch_tiny_imagenet
from robustbench_tin.data.files import Directory, Files, Zip, central_directory
from robustbench_tin.data.listing import (
    VAL_FOLDERS,
    Box,
    LeftOut,
    Listing,
    Reason,
    SplitListing,
    by_number,
    is_image,
    val_notes,
    within,
)
from robustbench_tin.data.source import OpenOptions, Source
from robustbench_tin.data.tiny_imagenet_text import ANNOTATIONS, BOXES, FOLDER, WNIDS, WORDS, TextFiles
from robustbench_tin.data.tiny_imagenet_val import find_val, folder_of_val, has_class_folders
from robustbench_tin.errors import DataError
from robustbench_tin.text import printable

OFFICIAL_COUNTS = {"train": 100_000, "val": 10_000}
_TOPS = (WNIDS, WORDS, "train", *VAL_FOLDERS)


@dataclass(frozen=True)
class TinyImageNet(Source):
    """Tiny ImageNet (200 classes, 64×64): downloaded, unpacked, or directly from its zip file.

    ``path`` is the unpacked ``tiny-imagenet-200``, the directory that contains it, or a zip file of it.
    Without a path, the official zip is downloaded into the cache directory. Validation images may also lie in
    class folders, rearranged for ``ImageFolder``: ``val/CLASS/*``, ``val/CLASS/images/*`` or
    ``val/images/CLASS/*``. If there is no ``val``, then ``valid``, ``validation`` or ``test`` is read in its
    place.
    """

    name: ClassVar[str] = "tiny-imagenet"
    takes_path: ClassVar[bool] = True

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """True if ``path`` is an unpacked set, or contains one, or is a zip file of one, even if damaged."""
        if path.is_file():
            return path.suffix.lower() == ".zip" and _is_packed(path)
        return any((root / WNIDS).is_file() or _is_annotated(root) for root in (path, path / FOLDER))

    def open(self, options: OpenOptions) -> Dataset:
        """Open it; download and decode it first if it is not in the cache.

        Raises:
            DataError: if it is missing, incomplete, broken or cannot be downloaded.
        """
        path = self.path or fetch_tiny_imagenet(options)
        files = _files(path)
        decoded = open_decoded(self.name, files, find_tiny_imagenet, options)
        return Dataset(
            name=self.name,
            source=str(path),
            classes=decoded.classes,
            class_names=decoded.class_names,
            train=decoded.splits["train"],
            val=decoded.splits["val"],
            test=decoded.splits.get("test"),
            fingerprint=decoded.fingerprint,
            notes=tuple(_notes(decoded)),
        )


def find_tiny_imagenet(files: Files) -> Listing:
    """List the images of Tiny ImageNet's layout with their labels and boxes.

    Training images are ordered by class, then number; validation images in the order of the annotations, then
    by number.

    Raises:
        DataError: for a missing or malformed file, a class without training images, or annotations that
            contradict the folders.
    """
    texts = TextFiles(files)
    classes = _find_classes(files, texts)
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    folder = folder_of_val(files)
    val, copies = find_val(files, texts, folder, label_of)
    splits = {"train": _find_train(files, texts, label_of), "val": val}
    if folder != "test":
        splits |= _find_test(files)
    notes = val_notes(folder)
    if WNIDS not in files.names:
        notes.append(f"there is no {WNIDS}: the classes are the folders of train/, sorted by name")
    class_names = texts.class_names(classes)
    left_out = {**_left_out(files, texts, folder, splits, copies), Reason.TOO_LARGE: texts.too_large}
    return Listing(classes, class_names, splits, size=64, exact=True, left_out=left_out, notes=tuple(notes))


def _is_annotated(root: Path) -> bool:
    """True if a directory has images and a text file of Tiny ImageNet other than its list of classes."""
    try:
        first = next((entry for entry in (root / "train").iterdir() if entry.is_dir()), None)
    except OSError:
        first = None
    return any((root / folder / ANNOTATIONS).is_file() for folder in VAL_FOLDERS) or (
        first is not None and ((root / WORDS).is_file() or (first / f"{first.name}{BOXES}").is_file())
    )


def _is_packed(path: Path) -> bool:
    try:
        listed = central_directory(path)
    except DataError:
        return True  # opening it will report the fault
    return any(name.encode() in listed for name in (WNIDS, ANNOTATIONS, BOXES))


def _files(path: Path) -> Files:
    if not path.exists():
        raise DataError(f"no Tiny ImageNet at '{path}': no such path; expected {FOLDER} or its zip file")
    if path.is_file():
        return Zip(path, _root, _TOPS, f"no {WNIDS}; expected tiny-imagenet-200.zip")
    if not (path / WNIDS).is_file() and (path / FOLDER).is_dir():
        path = path / FOLDER
    return Directory(path, _TOPS)


def _root(names: Collection[str]) -> str | None:
    """The folder of ``wnids.txt``; without it, the folder of ``train`` if validation has class folders."""
    marked = [name.removesuffix(WNIDS) for name in names if name.rpartition("/")[2] == WNIDS]
    if not marked and has_class_folders(names):
        marked = [name[: f"/{name}".index("/train/")] for name in names if "/train/" in f"/{name}"]
    return min(marked, key=len, default=None)


def _find_classes(files: Files, texts: TextFiles) -> tuple[str, ...]:
    """The classes of ``wnids.txt``; without it, the folders of train/ if validation has class folders."""
    if WNIDS in files.names:
        classes = tuple(dict.fromkeys(texts.lines(WNIDS)))
        if not classes:
            raise DataError(f"'{texts.place(WNIDS)}' is empty; expected one class id per line")
        return classes
    found = {name.split("/")[1] for name in files.names if _is_of_class(name)}
    if not found or not has_class_folders(files.names):
        raise DataError(
            f"'{texts.place()}' has no {WNIDS}; expected an unpacked {FOLDER} or its zip file, or class"
            " folders in train and val"
        )
    return tuple(sorted(found))


def _find_train(files: Files, texts: TextFiles, label_of: dict[str, int]) -> SplitListing:
    found: dict[str, list[str]] = {wnid: [] for wnid in label_of}
    for name in files.names:
        if _is_of_class(name):
            wnid = name.split("/")[1]
            if wnid not in found:
                raise DataError(
                    f"'{texts.place(f'train/{wnid}')}' is not a class in {WNIDS}; remove it, or add it there"
                )
            found[wnid].append(name)
    names: list[str] = []
    labels: list[int] = []
    boxes: list[Box] = []
    for wnid, images in found.items():
        if not images:
            raise DataError(
                f"class '{printable(wnid)}' has no training images in"
                f" '{texts.place(f'train/{wnid}/images')}'; unpack it again, or remove it from {WNIDS}"
            )
        images.sort(key=by_number)
        box_of = texts.boxes_of("train", wnid)
        names += images
        labels += [label_of[wnid]] * len(images)
        boxes += [box_of[name.rpartition("/")[2]] for name in images]
    return SplitListing(names, labels, boxes)


def _is_of_class(name: str) -> bool:
    """True for a training image in a class folder."""
    return name.startswith("train/") and is_image(name) and name.count("/") > 1


def _find_test(files: Files) -> dict[str, SplitListing]:
    names = [name for name in files.names if name.startswith("test/images/") and is_image(name)]
    names.sort(key=by_number)
    return {"test": SplitListing(names, [UNLABELLED] * len(names), optional=True)} if names else {}


def _left_out(
    files: Files, texts: TextFiles, folder: str, splits: dict[str, SplitListing], copies: list[str]
) -> LeftOut:
    """The files in the splits' folders that are not used."""
    tops = ("train/", f"{folder}/", *(["test/"] if "test" in splits else []))
    used = {*texts.used, *copies, *(name for split in splits.values() for name in split.names)}
    rest = [name for name in files.names - used if name.startswith(tops)]
    return {
        **within(files.left_out, tops),
        Reason.OTHER_KIND: [name for name in rest if not is_image(name)],
        Reason.NO_CLASS: [name for name in rest if is_image(name)],
        Reason.COPY: copies,
    }


def _notes(decoded: Decoded) -> Iterator[str]:
    for split, official in OFFICIAL_COUNTS.items():
        count = len(decoded.splits[split])
        if count < official:
            yield f"{count:,} of the {official:,} {split} images of Tiny ImageNet are there"
    for split in OFFICIAL_COUNTS:
        degenerate = _degenerate(decoded.splits[split])
        if degenerate:
            count = len(decoded.splits[split])
            yield f"{degenerate:,} of {count:,} {split} images have a degenerate bounding box or none"
    yield from decoded.notes


def _degenerate(split: Split) -> int:
    if split.boxes is None:
        return 0
    x0, y0, x1, y1 = split.boxes.T
    return int(np.count_nonzero((x1 <= x0) | (y1 <= y0)))
