"""What a layout says about its images before one of them is decoded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Box = tuple[int, int, int, int]

NO_BOX: Box = (-1, -1, -1, -1)

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What image files end in, in any case; those of torchvision's ``ImageFolder``."""

VAL_FOLDERS = ("val", "valid", "validation", "test")
"""What the folder of validation images is called; the first that is there is read."""


class Reason(StrEnum):
    """Why a file within a data set is left out."""

    HIDDEN = "hidden"
    OTHER_KIND = "other-kind"
    NO_CLASS = "no-class"
    COPY = "copy"
    LOOP = "loop"
    TOO_LARGE = "too-large"


LeftOut = Mapping[Reason, list[str]]
"""The names of files that are left out, by the reason."""


@dataclass(frozen=True)
class SplitListing:
    """The images of one split, in the order in which they will stand in its arrays.

    Attributes:
        names: file names, as :class:`~robustbench_tin.data.files.Files` names them.
        labels: a class index a file.
        boxes: ``x0, y0, x1, y1`` a file, :data:`NO_BOX` where it has none; or None for all.
        optional: a broken image is left out and noted, never refused.
    """

    names: list[str]
    labels: list[int]
    boxes: list[Box] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Listing:
    """A data set that is found but not decoded.

    Attributes:
        classes: class ids in label order.
        class_names: a readable name a class.
        splits: by name; ``train`` and ``val`` at least.
        size: height and width of the decoded images, in pixels.
        exact: an image of another size is broken, where False it is scaled and cropped.
        shorter: length in pixels that the shorter side of an image is scaled to before its centre is cropped,
            as torchvision's ``Resize`` and ``CenterCrop`` do; None: ``size``.
        left_out: files that no split has.
        notes: lines about the layout that are worth showing.
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
    """Whether a file's name says that it is an image."""
    return name.lower().endswith(SUFFIXES)


def val_folder(names: Collection[str]) -> str:
    """The folder that validation images lie in, by what else people call it; ``val`` if there is none."""
    tops = {top for top, slash, _ in (name.partition("/") for name in names) if slash}
    return next((folder for folder in VAL_FOLDERS if folder in tops), VAL_FOLDERS[0])


def val_notes(folder: str) -> list[str]:
    """A line if validation images are read from somewhere else than ``val``."""
    return [] if folder == VAL_FOLDERS[0] else [f"the validation images are those in {folder}/"]


def within(left_out: LeftOut, tops: tuple[str, ...]) -> dict[Reason, list[str]]:
    """Those of the files that lie in the folders that are read, or in macOS' copies of them."""
    return {
        reason: [name for name in names if name.startswith((*tops, "__MACOSX/"))]
        for reason, names in left_out.items()
    }


def by_number(name: str) -> tuple[int, str]:
    """Sorts ``n01443537_9`` before ``n01443537_10``."""
    return len(name), name
