"""Sort the rows of a table by one of its columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from robustbench_tin.benchmarks.reporting.figure import Figure
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.benchmarks.reporting.table_columns import Column
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.errors import InvalidSettingError

SHORT = ("clean", "worst", "top1", "top5")
"""Short names of columns: clean top-1, the lowest top-1 under attack, and means under attack."""

_Key = Callable[[tuple[str, ...]], "float | None"]


def sorted_tables(tables: Sequence[tuple[Table, Sequence[Column]]], name: str) -> list[Table]:
    """Tables sorted by a column: the highest figure first, names from a to z.

    Rows without a figure come last, below those whose clean accuracy is not above chance. A table without
    this column keeps its order.

    Args:
        tables: tables with their columns of figures.
        name: a heading, or one of :data:`SHORT`.

    Raises:
        InvalidSettingError: if no table has the column.
    """
    orders = [_order(table, columns, name) for table, columns in tables]
    if all(order is None for order in orders):
        known = dict.fromkeys(heading for table, _ in tables for heading in table.columns if heading)
        raise InvalidSettingError(f"sort got '{name}'; expected a column: {', '.join((*SHORT, *known))}")
    return [_in_order(table, order) for (table, _), order in zip(tables, orders, strict=True)]


def _in_order(table: Table, order: list[int] | None) -> Table:
    if order is None:
        return table
    rows = tuple(table.rows[number] for number in order)
    return replace(
        table, rows=rows, dimmed=frozenset(place for place, row in enumerate(order) if row in table.dimmed)
    )


def _order(table: Table, columns: Sequence[Column], name: str) -> list[int] | None:
    """The row numbers in sorted order; None if the table has no such column."""
    wanted = " ".join(name.casefold().split())
    headings = [heading.casefold() for heading in table.columns]
    numbers = range(len(table.rows))
    if wanted in headings[: table.label_columns]:
        label = headings.index(wanted)
        return sorted(numbers, key=lambda number: _natural(table.rows[number][label]))
    picked = [place for place, heading in enumerate(headings) if heading == wanted]
    picked = picked or [
        table.label_columns + place for place, column in enumerate(columns) if _is_meant(column, wanted)
    ]
    if not picked:
        return None

    def key(number: int) -> tuple[bool, bool, float]:
        figures = [table.rows[number][place] for place in picked]
        values = [each.value for each in figures if isinstance(each, Figure) and each.value is not None]
        height = 0.0 if not values else min(values) if wanted == "worst" else fmean(values)
        return not values, number in table.dimmed, -height

    return sorted(numbers, key=key)


def _is_meant(column: Column, short: str) -> bool:
    """Whether a short name refers to this column."""
    if short == CLEAN:
        return column.attack == CLEAN and column.rank == 1
    return column.attacked and {"worst": 1, "top1": 1, "top5": 5}.get(short) == column.rank


def _natural(text: str) -> tuple[bool, float, str]:
    """A sort key: numbers by size, before words."""
    return (False, float(text), "") if text.isdecimal() else (True, 0.0, text)
