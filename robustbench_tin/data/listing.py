"""The list of a data set's images, made from its layout before any image is decoded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Box = tuple[int, int, int, int]

NO_BOX: Box = (-1, -1, -1, -1)

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes of image files, in upper or lower case; the list of torchvision's ``ImageFolder``."""

VAL_FOLDERS = ("val", "valid", "validation", "test")
"""Names of the folder of validation images; the first one that exists is read."""


class Reason(StrEnum):
    """The reason why a file within a data set is left out."""

    HIDDEN = "hidden"
    OTHER_KIND = "other-kind"
    NO_CLASS = "no-class"
    COPY = "copy"
    LOOP = "loop"
    TOO_LARGE = "too-large"


LeftOut = Mapping[Reason, list[str]]
"""The names of files that are left out, by reason."""


@dataclass(frozen=True)
class SplitListing:
    """The images of one split, in the order of its arrays.

    Attributes:
        names: file names, in the form of :class:`~robustbench_tin.data.files.Files`.
        labels: a class index for each file.
        boxes: ``x0, y0, x1, y1`` for each file, :data:`NO_BOX` if it has none; None if no file has one.
        optional: leave a broken image out with a note instead of refusing the data set.
    """

    names: list[str]
    labels: list[int]
    boxes: list[Box] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Listing:
    """A data set that has been found but not decoded.

    Attributes:
        classes: class ids in label order.
        class_names: a readable name for each class.
        splits: the splits by name; at least ``train`` and ``val``.
        size: height and width of the decoded images in pixels.
        exact: True if an image of another size is broken; False if it is scaled and cropped.
        shorter: length in pixels to which the shorter side of an image is scaled before its centre is
            cropped, as in torchvision's ``Resize`` and ``CenterCrop``; None for ``size``.
        left_out: files that belong to no split.
        notes: lines about the layout to show the user.
    """

    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: Mapping[str, SplitListing]
    size: int = 64
    exact: bool = False
    shorter: int | None = None
    left_out: LeftOut = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def is_image(name: str) -> bool:
    """True if a file's name ends as an image's."""
    return name.lower().endswith(SUFFIXES)


def val_folder(names: Collection[str]) -> str:
    """The folder of validation images, under any of its usual names; by default ``val``."""
    tops = {top for top, slash, _ in (name.partition("/") for name in names) if slash}
    return next((folder for folder in VAL_FOLDERS if folder in tops), VAL_FOLDERS[0])


def val_notes(folder: str) -> list[str]:
    """A note if validation images are read from a folder other than ``val``."""
    return [] if folder == VAL_FOLDERS[0] else [f"the validation images are those in {folder}/"]


def within(left_out: LeftOut, tops: tuple[str, ...]) -> dict[Reason, list[str]]:
    """The left-out files that lie in the folders that are read, or in macOS's copies of them."""
    return {
        reason: [name for name in names if name.startswith((*tops, "__MACOSX/"))]
        for reason, names in left_out.items()
    }


def by_number(name: str) -> tuple[int, str]:
    """Sort key that puts ``n01443537_9`` before ``n01443537_10``."""
    return len(name), name
