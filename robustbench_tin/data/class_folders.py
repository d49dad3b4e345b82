"""Images in class folders: one folder for each class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from robustbench_tin.data.decode import image_size
from robustbench_tin.data.files import Files
from robustbench_tin.data.listing import SplitListing, is_image
from robustbench_tin.errors import DataError
from robustbench_tin.text import printable


def by_class(files: Files, folder: str) -> dict[str, list[str]]:
    """The images in each subfolder of a folder, by the subfolder's name; "" is the top folder."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in files.names:
        top, *below = name.split("/") if folder else ("", *name.split("/"))
        if top == folder and len(below) > 1 and is_image(name):
            found[below[0]].append(name)
    return found


def require_same_classes(
    files: Files, splits: Mapping[str, Mapping[str, object]], below: Mapping[str, str]
) -> None:
    """Refuse a class that only one of train and val has.

    Args:
        files: the files of the data set.
        splits: for each split, a mapping by class.
        below: the folder of each split.

    Raises:
        DataError: names the class.
    """
    for split, other in (("train", "val"), ("val", "train")):
        for name in sorted(splits[split].keys() - splits[other].keys()):
            raise DataError(
                f"class '{printable(name)}' has images in '{files.location}/{below[split]}' but none"
                f" in {below[other]}; add {below[other]}/{printable(name)}/* or remove"
                f" {below[split]}/{printable(name)}"
            )


def list_split(found: dict[str, list[str]], classes: tuple[str, ...]) -> SplitListing:
    """A split in ``ImageFolder``'s order: by class, then by name."""
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        names += sorted(found[name], key=_walked)
        labels += [label] * len(found[name])
    return SplitListing(names, labels)


def _walked(name: str) -> tuple[str, str]:
    """Sort key for the order of ``sorted(os.walk(...))``: by folder, then by file name."""
    folder, _, file = name.rpartition("/")
    return folder, file


def common_size(files: Files, names: Iterable[str]) -> int | None:
    """The side that all readable images share, if they are square; otherwise None."""
    common: int | None = None
    for name in names:
        try:
            size = image_size(files.read(name))
        except OSError:
            size = None
        if size is None:  # broken: decoding will report it
            continue
        width, height = size
        if width != height or common not in (None, width):
            return None
        common = width
    return common
