"""The program of a worker process: it completes the cells that its parent process sends.

The parent starts it as ``python -m robustbench_tin.benchmarks.cells.worker_process`` and writes a listener's
address and a key to its standard input. The worker ends when the parent ends, even if the parent is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import torch

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.complete_cell import complete_in_time
from robustbench_tin.benchmarks.cells.time_estimate import Estimate
from robustbench_tin.benchmarks.cells.time_limit import TimeLimit
from robustbench_tin.benchmarks.cells.worker_messages import Done, Ready, SendingReporter, Stopped
from robustbench_tin.benchmarks.planning.config import BenchConfig, DataConfig
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.errors import RobustTinError, RobustTinWarning
from robustbench_tin.progress import Reporter
from robustbench_tin.registry import load_plugin
from robustbench_tin.runtime import tune_allocator


@dataclass(frozen=True)
class Assignment:
    """The facts of a run that a worker needs.

    Attributes:
        path: the run directory; the parent process began it and holds its lock.
        request: the options that the parent process was given.
        costs: the time estimate of the plan.
        threads: number of CPU threads of the worker.
        limit: the time at which to stop.
    """

    path: Path
    request: BenchConfig
    costs: Estimate
    threads: int
    limit: TimeLimit


def main() -> None:
    """Serve the parent process until it closes the connection."""
    # The parent process handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    known = json.loads(sys.stdin.readline())
    connection = Client(known["address"], authkey=bytes.fromhex(known["key"]))
    connection.send(os.getpid())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _serve(connection)
    except (EOFError, ConnectionError):  # the parent no longer listens
        os._exit(1)
    except RobustTinError as error:
        connection.send(Stopped(str(error), error.exit_code))
    except BaseException as error:  # noqa: BLE001 - a defect; the parent process shows it
        connection.send(Stopped(repr(error), RobustTinError.exit_code, traceback.format_exc()))


def _end_with_parent() -> None:
    """End this process as soon as standard input closes: a killed parent's lock is free for other runs."""
    sys.stdin.read()
    os._exit(1)


def _serve(connection: Connection) -> None:
    assignment: Assignment = connection.recv()
    torch.set_num_threads(assignment.threads)
    tune_allocator()
    reporter = SendingReporter(connection)
    _tell_warnings(reporter)
    context = _context(assignment, reporter)
    connection.send(Ready())
    while True:
        cell: Cell = connection.recv()
        with context.run.files.kept():
            complete_in_time(context, cell)
        connection.send(Done())


def _context(assignment: Assignment, reporter: Reporter) -> CellContext:
    """Load the run in this process; check that every name of its plan is registered here, too.

    Raises:
        RobustTinError: if a plug-in, the data set, or something that the plan names cannot be loaded.
    """
    request = assignment.request
    for plugin in request.plugins:
        load_plugin(plugin)
    run = RunDirectory.load(assignment.path)
    _require_known(run.plan)
    dataset = open_part(Reporter(), **request.of(DataConfig))
    return CellContext(run, dataset, request, assignment.costs, reporter, limit=assignment.limit)


def _require_known(plan: Plan) -> None:
    for attack in plan.attacks:
        plan.attack(attack)
    for defense in plan.defenses:
        plan.defense(defense)
    for backbone in plan.backbones:
        plan.backbone(backbone)


def _tell_warnings(reporter: Reporter) -> None:
    """Send robust-tin's own warnings to the parent process as lines."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, RobustTinWarning):
            reporter.warn(f"warning: {message}")
        else:
            others(message, category, *rest, **named)

    warnings.simplefilter("always", RobustTinWarning)
    warnings.showwarning = show


if __name__ == "__main__":
    main()
