"""Errors that a user's input can cause, each with one line to read.

A message gives the value, the expected values and advice. The command line prints that line and exits
with the error's code; a Python user catches :class:`RobustTinError`. Any other exception is a defect of this
package and keeps its traceback.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path

FOREIGN: tuple[type[BaseException], ...] = (Exception, SystemExit)
"""Exceptions of a model, a plug-in or another package; an exit inside it must not look like success."""


class RobustTinWarning(UserWarning):
    """A fault that the work does not depend on; the command line prints it as one line."""


class RobustTinError(Exception):
    """Base of all errors that a user's input can cause; its text is one line."""

    exit_code = 2


class UnknownNameError(RobustTinError):
    """A name that is not registered; the message lists close names."""

    def __init__(self, kind: str, name: str, known: Iterable[str], owner: str = "") -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {_either(close)}?" if close else f"known: {', '.join(known)}"
        super().__init__(f"unknown {kind} '{name}'{owner and f' of {owner}'}; {hint}")


class InvalidSettingError(RobustTinError):
    """A setting, option or argument with an invalid value."""


class DataError(RobustTinError):
    """A data set that is missing, empty, broken or cannot be downloaded."""


class WeightsError(RobustTinError):
    """A weights file that is missing, unreadable or for another architecture."""


class RunError(RobustTinError):
    """A run directory that cannot be written, read or continued."""


class ForeignExitError(RobustTinError):
    """Code from outside this package ended the program."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            f"code from outside robust-tin ended the program ({one_line(error)}{_place(error)}), so there is"
            " no result; correct that code"
        )


class OutOfTimeError(RobustTinError):
    """The hours that a run was given are over, and part of it is left; not an error of the run."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: give the command again


class InterruptedByUserError(RobustTinError):
    """The user pressed Ctrl-C."""

    exit_code = 130


def one_line(error: BaseException) -> str:
    """Type and text of any exception in one line, at most 300 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


def _place(error: BaseException) -> str:
    """The line that raised the error: ``, in m.py, line 8``."""
    frames = traceback.extract_tb(error.__traceback__)
    # exit() and quit() are Python's own functions.
    outside = [frame for frame in frames if Path(frame.filename).name != "_sitebuiltins.py"]
    return f", in {outside[-1].filename}, line {outside[-1].lineno}" if outside else ""


def _either(names: list[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)
