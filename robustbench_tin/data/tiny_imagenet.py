"""Tiny ImageNet, as it is published: 200 classes, 64×64 pixels, a bounding box an image.

Le and Yang, "Tiny ImageNet Visual Recognition Challenge", Stanford CS 231N, 2015.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from robustbench_tin.data.base import UNLABELLED, Dataset, Split
from robustbench_tin.data.cache import Decoded, open_decoded
from robustbench_tin.data.download import fetch_tiny_imagenet
from robustbench_tin.data.files import Directory, Files, Zip
from robustbench_tin.data.listing import NO_BOX, Box, Listing, SplitListing
from robustbench_tin.data.source import OpenOptions, Source
from robustbench_tin.errors import DataError

FOLDER = "tiny-imagenet-200"
OFFICIAL_COUNTS = {"train": 100_000, "val": 10_000}


@dataclass(frozen=True)
class TinyImageNet(Source):
    """Tiny ImageNet (200 classes, 64×64): downloaded, unpacked, or straight from its zip file.

    ``path`` is the unpacked ``tiny-imagenet-200``, the directory that holds it, or the official zip;
    without one, the zip is downloaded into the cache directory.
    """

    name: ClassVar[str] = "tiny-imagenet"
    takes_path: ClassVar[bool] = True

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether ``path`` is a zip file, or an unpacked set, or holds one."""
        if path.is_file():
            return path.suffix.lower() == ".zip"
        return any(
            (root / "wnids.txt").is_file() or (root / "val" / "val_annotations.txt").is_file()
            for root in (path, path / FOLDER)
        )

    def open(self, options: OpenOptions) -> Dataset:
        """Open it, downloading and decoding what is not in the cache yet.

        Raises:
            DataError: where it is missing, incomplete, broken or cannot be fetched.
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

    Training images are ordered by class, then number; validation images as they are annotated.

    Raises:
        DataError: for a missing or malformed file, or a class without training images.
    """
    classes = tuple(dict.fromkeys(_lines(files, "wnids.txt")))
    if not classes:
        raise DataError(f"'{files.location}/wnids.txt' is empty; expected a class id a line")
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    splits = {"train": _find_train(files, label_of), "val": _find_val(files, label_of)}
    test = sorted((name for name in files.names if _is_image(name, "test/images/")), key=_by_number)
    if test:
        splits["test"] = SplitListing(test, [UNLABELLED] * len(test), optional=True)
    return Listing(classes, _class_names(files, classes), splits, size=64, exact=True)


def _files(path: Path) -> Files:
    if not path.exists():
        raise DataError(
            f"no Tiny ImageNet at '{path}': there is no such path; expected {FOLDER} or its zip file"
        )
    if path.is_file():
        return Zip(path, marker="wnids.txt")
    if not (path / "wnids.txt").is_file() and (path / FOLDER).is_dir():
        path = path / FOLDER
    return Directory(path, tops=("wnids.txt", "words.txt", "train", "val", "test"))


def _find_train(files: Files, label_of: dict[str, int]) -> SplitListing:
    found: dict[str, list[str]] = {wnid: [] for wnid in label_of}
    for name in files.names:
        if _is_image(name, "train/"):
            wnid = name.split("/")[1]
            if wnid not in found:
                raise DataError(
                    f"'{files.location}/train/{wnid}' is of no class in wnids.txt; remove it, or add it there"
                )
            found[wnid].append(name)
    names: list[str] = []
    labels: list[int] = []
    boxes: list[Box] = []
    for wnid, images in found.items():
        if not images:
            raise DataError(
                f"class '{wnid}' has no training images in '{files.location}/train/{wnid}/images';"
                " unpack it again, or take it out of wnids.txt"
            )
        images.sort(key=_by_number)
        box_of = _train_boxes(files, wnid)
        names += images
        labels += [label_of[wnid]] * len(images)
        boxes += [box_of[_file_name(name)] for name in images]
    return SplitListing(names, labels, boxes)


def _train_boxes(files: Files, wnid: str) -> dict[str, Box]:
    box_of: dict[str, Box] = defaultdict(lambda: NO_BOX)
    name = f"train/{wnid}/{wnid}_boxes.txt"
    if name in files.names:
        for image, box in _table(files, name, columns=5):
            box_of[image[0]] = box
    return box_of


def _find_val(files: Files, label_of: dict[str, int]) -> SplitListing:
    annotations = "val/val_annotations.txt"
    names: list[str] = []
    labels: list[int] = []
    boxes: list[Box] = []
    for (image, wnid), box in _table(files, annotations, columns=6):
        if wnid not in label_of:
            raise DataError(
                f"'{files.location}/{annotations}' gives {image} class '{wnid}', which wnids.txt has not"
            )
        name = f"val/images/{image}"
        if name in files.names:
            names.append(name)
            labels.append(label_of[wnid])
            boxes.append(box)
    if not names:
        raise DataError(
            f"'{files.location}/val/images' has none of the images of val_annotations.txt; unpack it again"
        )
    if len(set(names)) < len(names):
        raise DataError(f"'{files.location}/{annotations}' lists an image twice; unpack it again")
    for name in files.names - set(names):
        if _is_image(name, "val/images/"):
            raise DataError(f"image '{files.location}/{name}' has no line in val_annotations.txt; remove it")
    return SplitListing(names, labels, boxes)


def _class_names(files: Files, classes: Sequence[str]) -> tuple[str, ...]:
    names = {wnid: wnid for wnid in classes}
    if "words.txt" in files.names:
        for line in _lines(files, "words.txt"):
            wnid, _, words = line.partition("\t")
            if wnid in names and words:
                names[wnid] = words
    return tuple(names.values())


def _table(files: Files, name: str, columns: int) -> Iterator[tuple[list[str], Box]]:
    """The lines of an annotation file: its leading words, and the box that ends each."""
    for number, line in enumerate(_lines(files, name), 1):
        fields = line.split("\t")
        try:
            x0, y0, x1, y1 = (int(field) for field in fields[-4:])
            if len(fields) != columns:
                raise ValueError
        except ValueError:
            raise DataError(
                f"line {number} of '{files.location}/{name}' is '{line[:60]}';"
                f" expected {columns} columns apart by tabs, the last four x0, y0, x1, y1"
            ) from None
        yield fields[:-4], (x0, y0, x1, y1)


def _lines(files: Files, name: str) -> list[str]:
    try:
        text = files.read(name) if name in files.names else None
    except OSError as error:
        raise DataError(f"'{files.location}/{name}' cannot be read: {error.strerror or error}") from error
    if text is None:
        raise DataError(f"'{files.location}' has no {name}; expected an unpacked {FOLDER} or its zip file")
    return [line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]


def _is_image(name: str, below: str) -> bool:
    return name.startswith(below) and name.lower().endswith((".jpeg", ".jpg", ".png"))


def _file_name(name: str) -> str:
    return name.rpartition("/")[2]


def _by_number(name: str) -> tuple[int, str]:
    """Sorts ``n01443537_9`` before ``n01443537_10``."""
    return len(name), name


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
    yield from decoded.broken_notes()


def _degenerate(split: Split) -> int:
    if split.boxes is None:
        return 0
    x0, y0, x1, y1 = split.boxes.T
    return int(np.count_nonzero((x1 <= x0) | (y1 <= y0)))
