"""The part of a cell that is under way: noted when it begins, so that others see what a run does."""

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
        seconds: that it is expected to take.
        began: seconds since 1970; nothing is decided by it, as clocks jump.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: str
    seconds: float
    began: float

    @property
    def seconds_passed(self) -> float:
        """Seconds since it began, at most those expected; 0 if the clock was set back."""
        return min(self.seconds, max(0.0, time.time() - self.began))


def note_current(run: TrainingFiles, cell: Cell, part: str, seconds: float) -> None:
    """Note that a part of a cell begins."""
    current = CurrentPart(part=part, seconds=seconds, began=time.time())
    write_text(run.current_file(cell), current.model_dump_json() + "\n")


def forget_current(run: TrainingFiles, cell: Cell) -> None:
    """Note that nothing of a cell is under way."""
    with suppress(OSError):
        run.current_file(cell).unlink(missing_ok=True)


def current_part(run: TrainingFiles, cell: Cell) -> CurrentPart | None:
    """The part of a cell that was begun and not ended; that of a killed run is there, too."""
    try:
        return read_json(run.current_file(cell), CurrentPart)
    except RunError:
        return None  # there is none, or it goes as it is read
