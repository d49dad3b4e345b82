"""The facts of a run that a worker in another process, or on another machine, needs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.time_estimate import Estimate
from robustbench_tin.benchmarks.cells.time_limit import TimeLimit
from robustbench_tin.benchmarks.planning.config import BenchConfig, DataConfig
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.errors import RobustTinWarning
from robustbench_tin.progress import Reporter
from robustbench_tin.registry import load_plugin


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


def opened_context(assignment: Assignment, reporter: Reporter) -> CellContext:
    """Load the run in this process; check that every name of its plan is registered here, too.

    Args:
        assignment: the facts of the run.
        reporter: shows progress.

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


@contextmanager
def warnings_told(reporter: Reporter) -> Iterator[None]:
    """Send robust-tin's own warnings to the reporter as lines, inside the block."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, RobustTinWarning):
            reporter.warn(f"warning: {message}")
        else:
            others(message, category, *rest, **named)

    with warnings.catch_warnings():
        warnings.simplefilter("always", RobustTinWarning)
        warnings.showwarning = show
        yield
