"""The work of a Ray task: a cell, or a shard of one, of a run whose directory all nodes share."""

from __future__ import annotations

import os
import platform
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from robustbench_tin.benchmarks.cells.assignment import Assignment, opened_context, warnings_told
from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.cell_progress import is_complete
from robustbench_tin.benchmarks.cells.complete_cell import complete_in_time
from robustbench_tin.benchmarks.cells.divided_cell import DividedCell
from robustbench_tin.benchmarks.cells.measure_cell import evaluated_batches
from robustbench_tin.benchmarks.cells.time_limit import TimeLimit
from robustbench_tin.benchmarks.cells.worker_messages import Done, Sender, SendingReporter, Stopped
from robustbench_tin.benchmarks.measurement.shards import Shard
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.cell_claim import ClaimedError, claimed
from robustbench_tin.benchmarks.runs.records import versions
from robustbench_tin.errors import OutOfTimeError, RobustTinError, RunError
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
        name: of this assignment alone.
    """

    home: Path
    versions: str
    name: str


@dataclass(frozen=True)
class Divided:
    """A cell is trained; others measure these shards before it is completed.

    Attributes:
        shards: of its attacks.
    """

    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Busy:
    """Another process works on the cell.

    Attributes:
        text: one line for people.
    """

    text: str


@dataclass(frozen=True)
class Work:
    """The work of one task.

    Attributes:
        cell: it works on this cell.
        shard: the shard to measure; None: the whole cell.
        shortest_shard: least number of seconds of a shard; None: no measurement is divided.
    """

    cell: Cell
    shard: Shard | None = None
    shortest_shard: float | None = None


Answer = Done | Divided | Busy | Stopped

# The run that this process has opened, by the name of its assignment.
_opened: dict[str, CellContext] = {}


def work_in_worker(assignment: ClusterAssignment, work: Work, limit: TimeLimit, sender: Sender) -> Answer:
    """Do the work of one task in this process.

    Args:
        assignment: of the run.
        work: on one of its cells.
        limit: the time at which to stop.
        sender: takes messages on progress.

    Returns:
        How it ended; nothing is raised.
    """
    reporter = SendingReporter(sender)
    torch.set_num_threads(assignment.threads)
    tune_allocator()
    try:
        with warnings_told(reporter):
            context = replace(_context(assignment), reporter=reporter)
            context.limit.ends = limit.ends
            return (
                _complete(context, work) if work.shard is None else _measure(context, work.cell, work.shard)
            )
    except ClaimedError as error:
        return Busy(str(error))
    except RobustTinError as error:
        return Stopped(str(error), error.exit_code)
    except BaseException as error:  # noqa: BLE001 - a defect; shown by the process that started this
        return Stopped(repr(error), RobustTinError.exit_code, traceback.format_exc())


def _complete(context: CellContext, work: Work) -> Answer:
    run = context.run
    with claimed(run.cell_directory(work.cell), _PATIENCE), run.files.kept():
        # An earlier copy of this task may have done it all.
        shards = (
            [] if is_complete(run, work.cell) else complete_in_time(context, work.cell, work.shortest_shard)
        )
    return Divided(tuple(shards)) if shards else Done()


def _measure(context: CellContext, cell: Cell, shard: Shard) -> Answer:
    divided = DividedCell(context, cell)
    with suppress(OutOfTimeError), claimed(divided.files.directory(shard.name), _PATIENCE):
        divided.measure(shard, evaluated_batches(context))
    return Done()


def _context(assignment: ClusterAssignment) -> CellContext:
    """The run in this process, opened once.

    Raises:
        RunError: if this machine does not see the run directory, or has other versions of packages.
    """
    if assignment.name not in _opened:
        _opened.clear()
        with suppress(OSError):
            os.chdir(assignment.home)
        if not assignment.path.is_dir():
            raise RunError(
                f"node {platform.node()} does not see run directory '{assignment.path}'; expected a"
                " directory that all nodes of the cluster share"
            )
        if assignment.versions != versions():
            raise RunError(
                f"node {platform.node()} has {versions()}; expected those of the command,"
                f" {assignment.versions}"
            )
        _opened[assignment.name] = opened_context(assignment, Reporter())
    return _opened[assignment.name]
