"""What can go wrong through a user's input, each kind with one line to read.

A message says what was given, what was expected and what to do. The command line prints that line
and exits with the kind's code; a library user catches :class:`RobustTinError`. Anything else that
is raised is a defect of this package and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RobustTinError(Exception):
    """Base of all errors that a user's input can cause; its text is one line."""

    exit_code = 2


class UnknownNameError(RobustTinError):
    """A name that no registry entry has; the message lists the close ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {_either(close)}?" if close else f"known: {', '.join(known)}"
        super().__init__(f"unknown {kind} '{name}'; {hint}")


class InvalidSettingError(RobustTinError):
    """A setting, option or argument whose value does not fit."""


class DataError(RobustTinError):
    """A data set that is missing, empty, broken or cannot be fetched."""


class WeightsError(RobustTinError):
    """A checkpoint that is missing, unreadable or of another architecture."""


class RunError(RobustTinError):
    """A run directory that cannot be written, read or gone on with."""


def one_line(error: BaseException) -> str:
    """Kind and text of any exception in one line, at most 300 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


def _either(names: list[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)
