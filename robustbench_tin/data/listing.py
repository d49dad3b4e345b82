"""What a layout says about its images before one of them is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Box = tuple[int, int, int, int]

NO_BOX: Box = (-1, -1, -1, -1)


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
    """

    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: Mapping[str, SplitListing]
    size: int = 64
    exact: bool = False
