"""What a Ray worker does: it completes a cell of a run whose directory all nodes share. Imports no Ray."""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from robustbench_tin.benchmarks.cells.assignment import Assignment, opened_context, warnings_told
from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.cell_progress import is_complete
from robustbench_tin.benchmarks.cells.complete_cell import complete_cell
from robustbench_tin.benchmarks.cells.worker_messages import Done, Sender, SendingReporter, Stopped
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.cell_claim import ClaimedError, claimed
from robustbench_tin.benchmarks.runs.records import versions
from robustbench_tin.errors import RobustTinError, RunError
from robustbench_tin.progress import Reporter
from robustbench_tin.runtime import tune_allocator

# Seconds that a task waits for an earlier copy of itself, on a machine that was taken for lost.
_PATIENCE = 600.0


@dataclass(frozen=True)
class ClusterAssignment(Assignment):
    """An assignment for any machine of a cluster.

    Attributes:
        home: the directory that the command was given in, from which relative paths count.
        versions: of the packages that numbers depend on, there.
    """

    home: Path
    versions: str


@dataclass(frozen=True)
class Busy:
    """Another process works on the cell.

    Attributes:
        text: one line for people.
    """

    text: str


# What this process has opened, so that it opens it once.
_opened: dict[Path, CellContext] = {}


def complete_in_worker(assignment: ClusterAssignment, cell: Cell, sender: Sender) -> Done | Busy | Stopped:
    """Take a cell to its end in this process.

    Args:
        assignment: of the run.
        cell: one of its cells.
        sender: takes messages on progress.

    Returns:
        How it ended; nothing is raised.
    """
    reporter = SendingReporter(sender)
    torch.set_num_threads(assignment.threads)
    tune_allocator()
    try:
        with warnings_told(reporter):
            _complete(replace(_context(assignment), reporter=reporter), cell)
    except ClaimedError as error:
        return Busy(str(error))
    except RobustTinError as error:
        return Stopped(str(error), error.exit_code)
    except BaseException as error:  # noqa: BLE001 - a defect; shown by the process that started this
        return Stopped(repr(error), RobustTinError.exit_code, traceback.format_exc())
    return Done()


def _complete(context: CellContext, cell: Cell) -> None:
    run = context.run
    with claimed(run.cell_directory(cell), _PATIENCE), run.files.kept():
        # An earlier copy of this task may have done it all.
        if not is_complete(run, cell):
            complete_cell(context, cell)


def _context(assignment: ClusterAssignment) -> CellContext:
    """The run in this process, opened once.

    Raises:
        RunError: if this machine does not see the run directory, or has other versions of packages.
    """
    if assignment.path not in _opened:
        with suppress(OSError):
            os.chdir(assignment.home)
        if not assignment.path.is_dir():
            raise RunError(
                f"node {os.uname().nodename} does not see run directory '{assignment.path}'; expected a"
                " directory that all nodes of the cluster share"
            )
        if assignment.versions != versions():
            raise RunError(
                f"node {os.uname().nodename} has {versions()}; expected those of the command,"
                f" {assignment.versions}"
            )
        _opened[assignment.path] = opened_context(assignment, Reporter())
    return _opened[assignment.path]
