"""Standard output and error as they are found: in any encoding, full, or closed by their reader.

:func:`guarded_streams` is around the whole of the command line. Nothing that is printed within it raises: a
character that the encoding lacks is replaced, and the first failure to write is kept for the exit code.
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
# Tables say with these whether accuracy fell or rose: a question mark for both would be another table.
_PLAIN = {
    **{"▼": "-", "▲": "+", "–": "-", "—": "-", "…": ".", "→": ">", "×": "x", "≥": ">", "≤": "<", "±": "~"},
    **{"─": "-", "━": "-", "│": "|", "•": "*", "’": "'"},
}
_WIDE = 160


class GuardedStream:
    """A text stream whose writes never raise; everything else is the stream's own.

    Attributes:
        failure: the first error of a write; None while there is none.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write text, or drop it once a write has failed."""
        self._guarded(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts, likewise."""
        self._guarded(lambda: self._stream.writelines(lines))

    def flush(self) -> None:
        """Hand everything over to the system, likewise."""
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
        """Send what is left in the buffers to nowhere, or Python would fail on it again at its end."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, self._stream.fileno())
            finally:
                os.close(nowhere)


@contextmanager
def guarded_streams() -> Iterator[GuardedStream | None]:
    """Put guards in the place of ``sys.stdout`` and ``sys.stderr``; the guard of standard output is yielded.

    It is None if the process was started without standard output.
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
    """Whether a write failed because nobody reads any more, as after ``| head``."""
    return failure.errno in (errno.EPIPE, errno.ECONNRESET)


def make_console() -> Console:
    """A console as wide as the terminal, and wide enough for a whole table if there is none.

    It takes no text for markup, emoji codes or numbers to colour: what it prints comes from data.
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
