"""What a tracker was told of a run, kept in the run directory, so that the same tracked runs continue."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.runs.files import read_json
from robustbench_tin.benchmarks.tracking.tracker import End

_WHOLE = "run"


class Told(BaseModel, extra="forbid"):
    """What one tracked run was told.

    Attributes:
        id: the tracker's name for it; empty: it is not begun.
        epoch: the last one.
        digests: of the records and files, by their names.
        ended: how; None: it is open.
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
        file: it.
        place: of the tracker; what another place was told does not count.
    """

    def __init__(self, file: Path, place: str) -> None:
        self._file = file
        there = read_json(file, _Content) if file.exists() else None
        self._content = there if there is not None and there.place == place else _Content(place=place)

    def of(self, cell: str = _WHOLE) -> Told:
        """What a cell's tracked run was told; without a cell, that of the run."""
        return self._content.runs.setdefault(cell, Told())

    def doubt(self) -> None:
        """Forget the figures of tracked runs that are not finished, and the curves of those not closed."""
        for told in self._content.runs.values():
            if told.ended is not End.finished:
                told.digests = {}
            if told.ended is None:
                told.epoch = 0

    def save(self) -> None:
        """Write it down."""
        write_text(self._file, self._content.model_dump_json(indent=2) + "\n")
