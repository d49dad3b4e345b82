"""Cost: seconds of training and measuring, and passes per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.report.page_table import Cell, Column, PageTable
from robustbench_tin.benchmarks.reporting.figure import MISSING
from robustbench_tin.benchmarks.reporting.table_rows import TableRow
from robustbench_tin.benchmarks.runs.records import CLEAN, WORST_CASE


def cost_table(runs: Sequence[ShownRun]) -> PageTable:
    """One row per backbone and defense: seconds over all seeds, and passes per image under attack."""
    return PageTable(
        "cost",
        "Wall-clock time, summed over seeds, and passes per image over all attacks and budgets of a seed",
        [
            Column("model + defense", label=True),
            Column("device", choices=True),
            Column("seeds", number=True),
            Column("training, s", number=True),
            Column("clean, s", number=True),
            Column("attacks, s", number=True),
            Column("forward passes", number=True),
            Column("backward passes", number=True),
        ],
        [_row(run, row) for run in runs for row in run.rows],
        ("A worst case adds no cost. Trust checks are not counted.",),
    )


def _row(run: ShownRun, row: TableRow) -> list[Cell]:
    records = [record for cell in row.seeds for record in _own(cell.measures)]
    attacked = [record for record in records if record["attack"] not in (CLEAN, WORST_CASE)]
    images = len(row.seeds) * max((int(record["n"]) for record in records), default=1)
    training = [
        float(next(iter(_own(cell.measures)))["train_seconds"])
        for cell in row.seeds
        if _own(cell.measures) and _is_number(_own(cell.measures)[0]["train_seconds"])
    ]
    devices = ", ".join(dict.fromkeys(str(record["device"]) for record in records))
    return [
        Cell(run.label(row)),
        Cell(devices),
        Cell(str(len(row.seeds)), len(row.seeds)),
        _seconds(sum(training)) if training else Cell(MISSING),
        _seconds(_sum(records, "seconds", clean=True)),
        _seconds(_sum(attacked, "seconds")),
        _passes(_sum(attacked, "forward_passes") / images),
        _passes(_sum(attacked, "backward_passes") / images),
    ]


def _own(measures: Mapping[tuple[str, float], Mapping[Any, Any]]) -> list[Mapping[Any, Any]]:
    """The records of a cell, without those on images made on other cells."""
    return [record for record in measures.values() if "source_model" not in record]


def _sum(records: Sequence[Mapping[Any, Any]], name: str, *, clean: bool = False) -> float:
    return sum(float(record[name]) for record in records if not clean or record["attack"] == CLEAN)


def _is_number(value: Any) -> bool:
    return value is not None and value == value


def _seconds(value: float) -> Cell:
    return Cell(f"{value:,.1f}", value)


def _passes(value: float) -> Cell:
    return Cell(f"{value:,.1f}", value)
