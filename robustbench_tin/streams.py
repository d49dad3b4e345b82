"""Standard output and error in any state: in any encoding, full, or closed by the reader.

:func:`guarded_streams` wraps the whole command line. Printing inside it never raises: characters that the
encoding lacks are replaced, and the first failed write is kept for the exit code.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rich.console import Console

_REPLACING = "robust-tin-replace"
# Tables show with these whether accuracy fell or rose: a question mark for both would change the table.
_PLAIN = {
    **{"▼": "-", "▲": "+", "–": "-", "—": "-", "…": ".", "→": ">", "×": "x", "≥": ">", "≤": "<", "±": "~"},
    **{"─": "-", "━": "-", "│": "|", "•": "*", "’": "'"},
}
_WIDE = 160


class GuardedStream:
    """A text stream whose writes never raise; everything else is the stream's own.

    Attributes:
        failure: the first error of a write; None if there was no error.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write text, or drop it after a failed write."""
        self._guarded(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts, or drop them after a failed write."""
        self._guarded(lambda: self._stream.writelines(lines))

    def flush(self) -> None:
        """Flush the stream, unless a write has failed."""
        self._guarded(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            self.failure = self.failure or error
            self._discard()

    def _discard(self) -> None:
        """Redirect the remaining buffers to the null device; otherwise Python would fail on them at exit."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, self._stream.fileno())
            finally:
                os.close(nowhere)


@contextmanager
def guarded_streams() -> Iterator[GuardedStream | None]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by guards; yields the guard of standard output.

    The guard is None if the process was started without standard output.
    """
    codecs.register_error(_REPLACING, _replace)
    before = sys.stdout, sys.stderr
    guards = [None if stream is None else _guard(stream) for stream in before]
    sys.stdout, sys.stderr = cast(Any, guards)
    try:
        yield guards[0]
    finally:
        sys.stdout, sys.stderr = before


def _guard(stream: IO[str]) -> GuardedStream:
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=_REPLACING)
    return GuardedStream(stream)


def was_closed_by_its_reader(failure: OSError) -> bool:
    """True if a write failed because the reader closed the stream, as ``| head`` does."""
    return failure.errno in (errno.EPIPE, errno.ECONNRESET)


def make_console() -> Console:
    """A console as wide as the terminal; without a terminal, wide enough for a whole table.

    It interprets no markup, emoji codes or numbers, because its text comes from data.
    """
    from rich.console import Console

    plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    console = Console(**plain)
    return console if console.is_terminal else Console(width=_WIDE, **plain)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in missing), error.end
