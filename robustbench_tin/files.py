"""Reading of a user's files: regular files only, within a size limit, in any Unicode encoding.

A named pipe would block forever, a device has no end, and a small archive may expand to gigabytes. All
readers of outside files use this module.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MOST_TEXT = 16 << 20
"""Size of the largest text file that is read, in bytes; WordNet's list of all synsets has a sixth of it."""

# Without it, opening a pipe without a writer would block.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is a prefix of it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class IrregularError(OSError):
    """A file that is not regular, or is larger than the limit; ``strerror`` gives the reason."""


class TooLargeError(IrregularError):
    """A file, or a member of an archive, that is larger than the limit."""

    def __init__(self, most: int) -> None:
        super().__init__(errno.EFBIG, f"larger than {most >> 20} MiB")


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading; never blocks on another kind of file.

    Raises:
        OSError: if it is missing or not a regular file; ``strerror`` names its kind.
    """
    return os.fdopen(_open(path)[0], "rb")


def read_bytes(path: str | Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Raises:
        TooLargeError: if it is larger.
        OSError: if it is missing, not a regular file, or cannot be read.
    """
    handle, size = _open(path)
    try:
        content = b""
        while size <= most and len(content) <= most:
            # The file may be longer than its stated size, as files in /proc are.
            piece = os.read(handle, min(max(size - len(content), 0) + 4096, most + 1 - len(content)))
            if not piece:
                return content
            content = content + piece if content else piece
    finally:
        os.close(handle)
    raise TooLargeError(most)


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """The content of a regular text file, see :func:`decode_text`.

    Raises:
        OSError: if it is missing, too large, not a regular file, or cannot be read.
        UnicodeDecodeError: if it is not text.
    """
    return decode_text(read_bytes(path, most))


def decode_text(content: bytes, errors: str = "strict") -> str:
    """Text in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark (UTF-32 only with one).

    Args:
        content: a whole file.
        errors: handling of bytes that are not UTF-8, as in :meth:`bytes.decode`.

    Raises:
        UnicodeDecodeError: if it has another encoding, and errors are strict.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None) or _unmarked(content)
    if not encoding.startswith("utf-8") and errors != "strict":
        errors = "replace"  # the other handlers are made for UTF-8
    return content.decode(encoding, errors)


def _open(path: str | Path) -> tuple[int, int]:
    """A handle on a regular file, and its size in bytes."""
    # Check before opening, because opening alone starts some devices.
    _require_regular(path, os.stat(path))  # noqa: PTH116 - twice as fast, and images are many
    handle = os.open(path, _FLAGS)
    status = os.fstat(handle)
    try:
        _require_regular(path, status)
    except OSError:
        os.close(handle)
        raise
    return handle, status.st_size


def _require_regular(path: str | Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for test, kind in _KINDS if test(status.st_mode)), "a special file")
        raise IrregularError(errno.EINVAL, f"it is {kind}, not a regular file", os.fspath(path))


def _unmarked(content: bytes) -> str:
    """Guess the encoding: UTF-16 text in Latin letters has a zero in every other byte; else it is UTF-8."""
    start = content[:4096]
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if max(even, odd) * 4 > len(start) and min(even, odd) * 16 < len(start):
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"
