"""The program of a worker process: it completes the cells that another process sends it.

Started as ``python -m robustbench_tin.benchmarks.cells.worker_process``, with the address of a listener and a
key on standard input. It ends when that process does, however that ends.
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
from robustbench_tin.benchmarks.cells.complete_cell import complete_cell
from robustbench_tin.benchmarks.cells.time_estimate import Estimate
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
    """All that a worker needs to know of a run.

    Attributes:
        path: the run directory, begun by the process that holds its lock.
        request: as it was given to that process.
        costs: of the plan.
        threads: that the worker computes with.
    """

    path: Path
    request: BenchConfig
    costs: Estimate
    threads: int


def main() -> None:
    """Serve the process at the other end until it closes the connection."""
    # The one that started this decides what Ctrl-C means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    known = json.loads(sys.stdin.readline())
    connection = Client(known["address"], authkey=bytes.fromhex(known["key"]))
    connection.send(os.getpid())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _serve(connection)
    except (EOFError, ConnectionError):  # nobody listens any more
        os._exit(1)
    except RobustTinError as error:
        connection.send(Stopped(str(error), error.exit_code))
    except BaseException as error:  # noqa: BLE001 - a defect; shown by the process that started this
        connection.send(Stopped(repr(error), RobustTinError.exit_code, traceback.format_exc()))


def _end_with_parent() -> None:
    """End this process at once when standard input closes: a killed parent's lock is free for others."""
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
            complete_cell(context, cell)
        connection.send(Done())


def _context(assignment: Assignment, reporter: Reporter) -> CellContext:
    """The run in this process; what the plan names must be known here, too.

    Raises:
        RobustTinError: if a plug-in, the data set, or something that the plan names cannot be loaded.
    """
    request = assignment.request
    for plugin in request.plugins:
        load_plugin(plugin)
    run = RunDirectory.load(assignment.path)
    _require_known(run.plan)
    dataset = open_part(Reporter(), **request.of(DataConfig))
    return CellContext(run, dataset, request, assignment.costs, reporter)


def _require_known(plan: Plan) -> None:
    for attack in plan.attacks:
        plan.attack(attack)
    for defense in plan.defenses:
        plan.defense(defense)
    for backbone in plan.backbones:
        plan.backbone(backbone)


def _tell_warnings(reporter: Reporter) -> None:
    """Show this package's own warnings as the other process shows lines."""
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
