"""The record of data sent to a tracker, kept in the run directory, so that the same tracked runs continue."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.runs.files import read_json
from robustbench_tin.benchmarks.tracking.tracker import End

_WHOLE = "run"


class Told(BaseModel, extra="forbid"):
    """The data that one tracked run has received.

    Attributes:
        id: the tracker's id of the run; empty: not begun.
        epoch: the last epoch sent.
        digests: digests of the records and files sent, by name.
        ended: how the run ended; None: it is open.
    """

    id: str = ""
    epoch: int = 0
    digests: dict[str, str] = Field(default_factory=dict)
    ended: End | None = None


class _Content(BaseModel, extra="forbid"):
    place: str
    runs: dict[str, Told] = Field(default_factory=dict)


class Memory:
    """The file ``RUN/tracking/NAME.json``.

    Args:
        file: its path.
        place: the tracker's place; data sent to another place does not count.
    """

    def __init__(self, file: Path, place: str) -> None:
        self._file = file
        there = read_json(file, _Content) if file.exists() else None
        self._content = there if there is not None and there.place == place else _Content(place=place)

    def of(self, cell: str = _WHOLE) -> Told:
        """The data that a cell's tracked run has received; without a cell, that of the whole run."""
        return self._content.runs.setdefault(cell, Told())

    def doubt(self) -> None:
        """Forget the figures of runs that are not finished, and the curves of runs that are not closed."""
        for run in self._content.runs.values():
            if run.ended is not End.finished:
                run.digests = {}
            if run.ended is None:
                run.epoch = 0

    def save(self) -> None:
        """Write the file."""
        write_text(self._file, self._content.model_dump_json(indent=2) + "\n")
