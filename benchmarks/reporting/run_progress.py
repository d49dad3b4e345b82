"""The progress of a run, for people: in short, and cell by cell."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.planning.cell_names import cell_name
from robustbench_tin.benchmarks.reporting.figure import MISSING
from robustbench_tin.benchmarks.runs.run_state import CellState, Progress, RunState
from robustbench_tin.progress import duration
from robustbench_tin.text import counted, printable

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def state_in_short(state: RunState) -> str:
    """``done``, or ``3 of 12 cells, 2 running, 1 failed``."""
    done = state.count(Progress.done)
    if done == len(state.cells):
        return "done"
    others = (Progress.running, Progress.failed)
    parts = [f"{number} {each}" for each in others if (number := state.count(each))]
    if state.running and not state.count(Progress.running):
        parts.append("running")
    return ", ".join([f"{done} of {counted(len(state.cells), 'cell')}", *parts])


def time_left(state: RunState) -> str:
    """``2.1 h`` until the last cell is done; empty if nothing is left, ``–`` if unknown."""
    if state.count(Progress.running) + state.count(Progress.waiting) == 0:
        return ""
    seconds = state.seconds_left
    return MISSING if seconds is None else duration(seconds)


def ending(state: RunState, now: datetime) -> str:
    """A sentence with the time at which the run will end, or the work that is left."""
    summary = f"{state_in_short(state)[:1].upper()}{state_in_short(state)[1:]}"
    left = time_left(state)
    if not left:
        return f"{summary}."
    if left == MISSING:
        return f"{summary}; the time left is unknown, because an earlier version began the run."
    if not state.running:
        return f"{summary}; not running. The same command continues and takes about {left}."
    assert state.seconds_left is not None
    end = now + timedelta(seconds=state.seconds_left)
    when = f"{end:%H:%M}" if end.date() == now.date() else f"{end:%Y-%m-%d %H:%M}"
    return f"{summary}; ends in about {left}, at {when}."


def cell_table(state: RunState) -> RichTable:
    """One row per cell: state, current part, measurements, work left."""
    from rich.table import Table as RichTable

    table = RichTable(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("cell", overflow="fold")
    for heading in ("state", "measured", "work left"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "work left" else "left")
    table.add_column("now", overflow="fold")
    for each in state.cells:
        table.add_row(*map(printable, _row(state, each)))
    return table


def _row(state: RunState, cell: CellState) -> tuple[str, str, str, str, str]:
    seconds = state.seconds_left_of(cell)
    at_end = cell.progress in (Progress.done, Progress.failed)
    left = "" if at_end else MISSING if seconds is None else duration(seconds)
    measured = f"{len(cell.taken)} of {len(cell.records)}"
    return cell_name(cell.cell), str(cell.progress), measured, left, _now(cell)


def _now(cell: CellState) -> str:
    """The current part of a cell; if it waits or failed, the state of its training or the failure."""
    if cell.current is not None:
        return cell.current.part
    if cell.trained is not None and cell.trained.status != OK:
        return str(cell.trained.status)
    failed = next((record for record in cell.taken if record.status != OK), None)
    if failed is not None:
        return f"{failed.attack}: {failed.status}"
    return "trained" if cell.progress is Progress.waiting and cell.trained is not None else ""
