"""One figure of a results table, made from the records of one or several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from robustbench_tin.benchmarks.codes.status import StatusCode
from robustbench_tin.benchmarks.codes.verdict import Reason, Trust, Verdict
from robustbench_tin.benchmarks.reporting.figure import MARKS, MISSING, Figure
from robustbench_tin.benchmarks.reporting.seed_interval import interval_over_seeds
from robustbench_tin.benchmarks.reporting.table_columns import Column
from robustbench_tin.benchmarks.reporting.table_rows import SeedMeasures, TableRow

Row = Mapping[Any, Any]


def cell_figure(row: TableRow, column: Column) -> Figure:
    """The mean over the seeds that have a figure, with their spread; the interval covers seeds and images.

    The figure's mark shows the worst verdict of any seed.
    """
    field = f"top{column.rank}"
    found = [(cell, cell.measures.get((column.attack, column.eps))) for cell in row.seeds]
    known = [(cell, measure) for cell, measure in found if _has(measure, field)]
    if not known:
        return Figure(_instead([measure for _, measure in found]))
    rates = [float(measure[field]) for _, measure in known if measure is not None]
    mean = 100 * fmean(rates)
    return Figure(
        f"{mean:.1f}",
        value=mean,
        mark=_mark([measure for _, measure in known]),
        deviation=100 * stdev(rates) if len(rates) > 1 else None,
        seeds=f"({len(known)} of {len(found)} seeds)" if len(known) < len(found) else "",
        lost=_lost(known, field) if column.eps > 0 else None,
        interval=_interval(rates, [measure for _, measure in known if measure is not None], field),
    )


def _lost(known: Sequence[tuple[SeedMeasures, Row | None]], field: str) -> float | None:
    """Mean points lost, over the seeds that also have a clean figure."""
    lost = [
        100 * (float(cell.clean[field]) - float(measure[field]))
        for cell, measure in known
        if measure is not None and cell.clean is not None and _has(cell.clean, field)
    ]
    return fmean(lost) if lost else None


def _mark(measures: Sequence[Row | None]) -> str:
    """The mark of the worst verdict."""
    states = [verdict_on(measure).state for measure in measures]
    return MARKS[max(states, key=list(Trust).index)]


def verdict_on(measure: Row | None) -> Verdict:
    """The verdict on a figure; an empty verdict if there is no figure or no checks were asked for."""
    reasons = measure["trust_codes"] if measure is not None and is_ok(measure) else None
    return Verdict.of(map(Reason.model_validate, reasons)) if isinstance(reasons, list) else Verdict()


def is_ok(measure: Row) -> bool:
    """Whether the measurement succeeded."""
    return bool(measure["status_code"] == StatusCode.ok)


def _has(measure: Row | None, field: str) -> bool:
    """Whether there is a figure; an attack with a criterion has only one of the two."""
    value = measure[field] if measure is not None and is_ok(measure) else None
    return value is not None and value == value


def _instead(measures: Sequence[Row | None]) -> str:
    """The text shown if no seed has a figure."""
    wrong = [measure for measure in measures if measure is not None and not is_ok(measure)]
    return StatusCode(wrong[0]["status_code"]).figure if wrong else MISSING


def _interval(rates: Sequence[float], measures: Sequence[Row], field: str) -> tuple[float, float]:
    if len(rates) > 1:
        low, high = interval_over_seeds(rates, int(measures[0]["n"]))
    else:
        low, high = (float(measures[0][f"{field}_{end}"]) for end in ("low", "high"))
    return 100 * low, 100 * high
