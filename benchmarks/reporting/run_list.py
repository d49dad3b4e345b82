"""The runs below a directory: date, state, best robust accuracy and a short plan of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_tin.benchmarks.planning.cell_names import listed
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.reporting.figure import MISSING
from robustbench_tin.benchmarks.reporting.run_progress import state_in_short, time_left
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN, Record
from robustbench_tin.benchmarks.runs.run_directory import PLAN_FILE, RunDirectory
from robustbench_tin.benchmarks.runs.run_state import run_state
from robustbench_tin.errors import RobustTinError, RunError
from robustbench_tin.specs import eps_text, short_numbers
from robustbench_tin.text import counted, printable

if TYPE_CHECKING:
    from rich.table import Table as RichTable

BEST = "best %: each cell's lowest top-1 under any attack at the largest eps; the highest over cells."


@dataclass(frozen=True)
class RunSummary:
    """One run in a list.

    Attributes:
        name: its path below the listed directory.
        date: time at which its plan was written: ``2026-01-31 12:00``.
        plan: the plan, in short.
        state: ``done``, or ``3 of 12 cells``, with the numbers of running and failed cells.
        left: time until the last cell is done: ``2.1 h``; work left if the run is not running.
        best: highest robust accuracy of a cell, in [0, 1]; None without a reliable one.
        damage: the reason why it cannot be read; empty if it can.
    """

    name: str
    date: str
    plan: str = ""
    state: str = ""
    left: str = ""
    best: float | None = None
    damage: str = ""


def run_summaries(directory: str | Path) -> list[RunSummary]:
    """The runs in a directory, at any depth, sorted by name; links are not followed.

    Raises:
        RunError: if there is no such directory.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise RunError(f"no directory '{directory}'; expected a directory of runs, such as runs")
    return [_summary(path, directory) for path in _run_paths(directory)]


def run_table(summaries: Sequence[RunSummary]) -> RichTable:
    """One row per readable run; only the plan may take several lines."""
    from rich.table import Table as RichTable

    table = RichTable(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("run", "date", "state", "left", "best %"):
        table.add_column(
            heading, no_wrap=True, overflow="fold", justify="right" if "%" in heading else "left"
        )
    table.add_column("plan")
    for each in summaries:
        if not each.damage:
            best = MISSING if each.best is None else f"{100 * each.best:.1f}"
            table.add_row(*map(printable, (each.name, each.date, each.state, each.left, best, each.plan)))
    return table


def _run_paths(directory: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(directory):
        subfolders.sort()
        if PLAN_FILE in files:
            subfolders.clear()  # runs are not nested
            yield Path(folder)


def _summary(path: Path, directory: Path) -> RunSummary:
    name = path.relative_to(directory).as_posix()
    began = datetime.fromtimestamp((path / PLAN_FILE).stat().st_mtime)
    date = f"{began:%Y-%m-%d %H:%M}"
    try:
        run = RunDirectory.load(path)
        state = run_state(run)
    except RobustTinError as error:
        return RunSummary(name, date, damage=str(error))
    rates = [rate for each in state.cells if (rate := _robust_accuracy(each.taken)) is not None]
    return RunSummary(
        name, date, plan_in_short(run.plan), state_in_short(state), time_left(state), max(rates, default=None)
    )


def plan_in_short(plan: Plan) -> str:
    """The plan in one line: ``demo: vgg16, mobilenet × none × 3 seeds; fgsm, pgd linf 4/255, 8/255``."""
    cells = [listed(plan.models)]
    cells += [] if plan.given else [listed([short_numbers(name) for name in plan.defenses])]
    cells += [counted(len(plan.seeds), "seed")] if len(plan.seeds) > 1 else []
    eps = ", ".join(map(eps_text, plan.attacked_eps))
    attacks = listed([short_numbers(name) for name in plan.attacks])
    return f"{plan.data}: {' × '.join(cells)}; " + (f"{attacks} {plan.norm} {eps}" if eps else CLEAN)


def _robust_accuracy(records: Sequence[Record]) -> float | None:
    """The lowest top-1 of a cell under any attack at the largest eps.

    None if nothing was attacked, a figure is doubted, or the clean accuracy is not above chance.
    """
    attacked = [record for record in records if record.attack not in (CLEAN, CERTIFIED)]
    largest = max((record.eps for record in attacked), default=0.0)
    measured = [record for record in attacked if record.eps == largest and record.top1 is not None]
    if not measured or any(_is_unreliable(record) for record in measured):
        return None
    return min(record.top1 for record in measured if record.top1 is not None)


def _is_unreliable(record: Record) -> bool:
    doubted = record.verdict is not None and bool(record.verdict.doubts)
    return doubted or record.above_chance is False
