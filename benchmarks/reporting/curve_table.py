"""The table of minimum eps: the eps at which half of the images are adversarial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustbench_tin.benchmarks.reporting.figure import MISSING
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.benchmarks.reporting.table_rows import SeedMeasures, TableRow
from robustbench_tin.specs import eps_text, short_numbers

Row = Mapping[Any, Any]


def curve_tables(rows: Sequence[TableRow], attacks: Sequence[str], *, intervals: bool) -> list[Table]:
    """One table, with a row per cell, if any attack was measured on a ladder of eps; else none.

    Args:
        rows: the rows of the results table.
        attacks: the attacks of the run.
        intervals: show the 95 % interval of each median.
    """
    cells = [(row, cell) for row in rows for cell in row.seeds]
    tops = {
        (number, attack): top
        for number, (_, cell) in enumerate(cells)
        for attack in attacks
        if (top := _top(cell, attack)) is not None
    }
    shown = [attack for attack in attacks if any(attack == known for _, known in tops)]
    if not shown:
        return []
    several = len({cell.seed for _, cell in cells}) > 1
    labels = ("model", "defense", *(["seed"] if several else []))
    return [
        Table(
            title=f"Median of the smallest {next(iter(tops.values()))['norm']} eps at which an image is"
            " adversarial",
            columns=(*labels, *map(short_numbers, shown)),
            rows=tuple(
                (
                    *(row.model, row.defense),
                    *([str(cell.seed)] if several else []),
                    *(_median(tops.get((number, attack)), intervals=intervals) for attack in shown),
                )
                for number, (row, cell) in enumerate(cells)
            ),
            label_columns=len(labels),
            notes=(
                "Over the images that are correct when clean. Each counts with the first eps of the ladder at"
                " which it is adversarial. >: fewer than half are adversarial at the largest eps.",
            ),
        )
    ]


def _top(cell: SeedMeasures, attack: str) -> Row | None:
    """The highest rung of an attack's ladder; None without a ladder."""
    rungs = [
        row
        for (name, _), row in cell.measures.items()
        if name == attack and row.get("curve") and row["carried"] == row["carried"]
    ]
    return max(rungs, key=lambda row: float(row["eps"]), default=None)


def _median(top: Row | None, *, intervals: bool) -> str:
    if top is None:
        return MISSING
    end = f"> {eps_text(top['eps'])}"
    value = end if _is_missing(top["median_eps"]) else eps_text(top["median_eps"])
    if not intervals:
        return value
    low, high = (
        end if _is_missing(top[name]) else eps_text(top[name])
        for name in ("median_eps_low", "median_eps_high")
    )
    return f"{value} [{low}, {high}]"


def _is_missing(value: Any) -> bool:
    return value is None or value != value
