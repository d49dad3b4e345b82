"""The current part of a cell, stored when it begins, so that other processes can show a run's progress."""

from __future__ import annotations

import time
from contextlib import suppress

from pydantic import BaseModel, ConfigDict

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.files import read_json
from robustbench_tin.benchmarks.runs.training_files import TrainingFiles
from robustbench_tin.errors import RunError


class CurrentPart(BaseModel):
    """A part of a cell's work.

    Attributes:
        part: ``train``, ``clean``, an attack or the trust checks, for people.
        seconds: expected seconds of the part.
        began: its begin, in seconds since 1970; for display only, since clocks can jump.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: str
    seconds: float
    began: float

    @property
    def seconds_passed(self) -> float:
        """Seconds since the part began, at most the expected number; 0 if the clock was set back."""
        return min(self.seconds, max(0.0, time.time() - self.began))


def note_current(run: TrainingFiles, cell: Cell, part: str, seconds: float) -> None:
    """Store that a part of a cell begins."""
    current = CurrentPart(part=part, seconds=seconds, began=time.time())
    write_text(run.current_file(cell), current.model_dump_json() + "\n")


def forget_current(run: TrainingFiles, cell: Cell) -> None:
    """Store that no part of a cell is running."""
    with suppress(OSError):
        run.current_file(cell).unlink(missing_ok=True)


def current_part(run: TrainingFiles, cell: Cell) -> CurrentPart | None:
    """The current part of a cell; a killed run leaves its part behind."""
    try:
        return read_json(run.current_file(cell), CurrentPart)
    except RunError:
        return None  # no part is running, or the file was just deleted
