"""One line about the files of a data set that are left out, and the reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from robustbench_tin.data.listing import LeftOut, Reason
from robustbench_tin.text import printable

_EXAMPLES = 3
_TEXTS = {
    Reason.HIDDEN: ("hidden file", "hidden files"),
    Reason.OTHER_KIND: ("file without an image's suffix", "files without an image's suffix"),
    Reason.NO_CLASS: ("file in no class folder", "files in no class folder"),
    Reason.COPY: ("second copy of an image", "second copies of images"),
    Reason.LOOP: ("link to a folder above it", "links to a folder above them"),
    Reason.TOO_LARGE: ("text file that is too large", "text files that are too large"),
}

Summary = Mapping[str, tuple[int, Sequence[str]]]
"""For each reason's code: the number of files, and their first names."""


def summarise(left_out: LeftOut) -> dict[str, tuple[int, list[str]]]:
    """A summary of the files that are left out, because a data set may have 100,000 of them."""
    return {
        reason.value: (len(names), sorted(names)[: _EXAMPLES + 1])
        for reason, names in left_out.items()
        if names
    }


def left_out_note(unreadable: Mapping[str, Sequence[str]], summary: Summary) -> str | None:
    """One line for the user; None if nothing is left out.

    Args:
        unreadable: for each split, the names of images that cannot be read.
        summary: the files that belong to no split.
    """
    parts = [
        _part(len(names), f"unreadable {split} image", f"unreadable {split} images", names)
        for split, names in unreadable.items()
        if names
    ]
    parts += [_part(count, *_TEXTS[Reason(code)], names) for code, (count, names) in summary.items()]
    return f"left out {'; '.join(parts)}" if parts else None


def _part(count: int, one: str, several: str, names: Iterable[str]) -> str:
    examples = [printable(name) for name in list(names)[:_EXAMPLES]]
    return (
        f"{count:,} {one if count == 1 else several}: {', '.join(examples)}"
        f"{', …' if count > len(examples) else ''}"
    )
