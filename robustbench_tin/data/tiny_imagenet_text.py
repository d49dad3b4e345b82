"""The text files of Tiny ImageNet: classes, their names, boxes and annotations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from robustbench_tin.data.files import Files
from robustbench_tin.data.listing import NO_BOX, Box
from robustbench_tin.errors import DataError
from robustbench_tin.files import MOST_TEXT, TooLargeError, decode_text
from robustbench_tin.text import printable

WNIDS = "wnids.txt"
WORDS = "words.txt"
ANNOTATIONS = "val_annotations.txt"
BOXES = "_boxes.txt"
FOLDER = "tiny-imagenet-200"

_FARTHEST = 65_535
"""A corner farther from the image's corner than this is invalid; no image is so wide."""
_DEGENERATE: Box = (0, 0, 0, 0)


class TextFiles:
    """Reads the text files, and records those that were left out.

    Attributes:
        used: names of the files that were read.
        too_large: names of optional files that are too large to read.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self.used: list[str] = []
        self.too_large: list[str] = []

    @property
    def source_of_classes(self) -> str:
        """The place that defines the classes, for the user."""
        return WNIDS if WNIDS in self._files.names else "train/"

    def place(self, name: str = "") -> str:
        """A file or folder, for the user."""
        return printable(str(self._files.location / name))

    def lines(self, name: str) -> list[str]:
        """The lines of a required file, without blank ones.

        Raises:
            DataError: if it is missing, too large or cannot be read.
        """
        if name not in self._files.names:
            raise DataError(f"'{self.place()}' has no {name}; expected an unpacked {FOLDER} or its zip file")
        try:
            return self._read(name)
        except TooLargeError as error:
            raise DataError(
                f"'{self.place(name)}' is {error.strerror}, expected a few lines of text; unpack it again"
            ) from None

    def optional_lines(self, name: str) -> list[str]:
        """The lines of a file; empty if it is missing or too large.

        Raises:
            DataError: if it cannot be read.
        """
        if name not in self._files.names:
            return []
        try:
            return self._read(name)
        except TooLargeError:
            self.too_large.append(name)
            return []

    def table(self, name: str, lines: Sequence[str], columns: int) -> Iterator[tuple[list[str], Box]]:
        """The lines of an annotation file: for each, its leading words and its box.

        Raises:
            DataError: for a line of another form.
        """
        for number, line in enumerate(lines, 1):
            fields = line.split("\t")
            try:
                x0, y0, x1, y1 = (int(field) for field in fields[-4:])
                if len(fields) != columns:
                    raise ValueError
            except ValueError:
                raise DataError(
                    f"line {number} of '{self.place(name)}' is '{printable(line[:60])}';"
                    f" expected {columns} columns separated by tabs, the last four x0, y0, x1, y1"
                ) from None
            near = max(x0, y0, x1, y1) <= _FARTHEST and min(x0, y0, x1, y1) >= -_FARTHEST
            yield fields[:-4], (x0, y0, x1, y1) if near else _DEGENERATE

    def boxes_of(self, folder: str, wnid: str) -> dict[str, Box]:
        """The boxes of a class by file name; :data:`NO_BOX` for any other name."""
        box_of: dict[str, Box] = defaultdict(lambda: NO_BOX)
        name = f"{folder}/{wnid}/{wnid}{BOXES}"
        for image, box in self.table(name, self.optional_lines(name), columns=5):
            box_of[image[0]] = box
        return box_of

    def class_names(self, classes: Sequence[str]) -> tuple[str, ...]:
        """A readable name for each class: its line in ``words.txt``, or else its id."""
        names = {wnid: printable(wnid) for wnid in classes}
        for line in self.optional_lines(WORDS):
            wnid, _, words = line.partition("\t")
            if wnid in names and words:
                names[wnid] = printable(words)
        return tuple(names.values())

    def _read(self, name: str) -> list[str]:
        self.used.append(name)
        try:
            content = self._files.read(name, MOST_TEXT)
        except TooLargeError:
            raise
        except OSError as error:
            raise DataError(f"'{self.place(name)}' cannot be read: {error.strerror or error}") from error
        # Bytes that are not UTF-8 stay unchanged, so that they match the names of files.
        text = decode_text(content, "surrogateescape")
        return [line.strip() for line in text.splitlines() if line.strip()]
