"""The lines below a results table: failures, remarks, and the reason for each mark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from robustbench_tin.benchmarks.codes.verdict import Reason, Trust
from robustbench_tin.benchmarks.reporting.cell_figure import is_ok, verdict_on
from robustbench_tin.benchmarks.reporting.figure import DOUBTED, UNCHECKED, Figure
from robustbench_tin.benchmarks.reporting.table import NOT_LEARNED
from robustbench_tin.benchmarks.reporting.table_columns import Column
from robustbench_tin.benchmarks.reporting.table_rows import TRANSFER, SeedMeasures, TableRow
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.specs import eps_text, short_numbers

Row = Mapping[Any, Any]


def table_notes(
    rows: Sequence[TableRow], columns: Sequence[Column], figures: Sequence[Figure], transfer: Sequence[str]
) -> tuple[str, ...]:
    """The notes of a table, without duplicates.

    Args:
        rows: the rows of the table.
        columns: its columns of figures.
        figures: all its figures.
        transfer: notes on the transfer columns.
    """
    measures = [(cell, measure) for row in rows for cell in row.seeds for measure in _shown(cell, columns)]
    return (
        *_reach(figures, several=any(len(row.seeds) > 1 for row in rows)),
        *_not_learned(rows),
        *transfer,
        *dict.fromkeys(remark for _, measure in measures for remark in measure["remark_list"]),
        *dict.fromkeys(
            f"{cell.name}{'' if cell.one_status else f', {_all_of([measure])}'}: {measure['status']}"
            for cell, measure in measures
            if not is_ok(measure)
        ),
        *_doubts(measures),
        *_unchecked(measures),
    )


def _shown(cell: SeedMeasures, columns: Sequence[Column]) -> Iterator[Row]:
    """The records of a cell that the table shows, without duplicates."""
    for key in dict.fromkeys((column.attack, column.eps) for column in columns if column.attack != TRANSFER):
        if key in cell.measures:
            yield cell.measures[key]


def _reach(figures: Sequence[Figure], *, several: bool) -> list[str]:
    ends = [each.interval for each in figures if each.interval is not None]
    if not ends:
        return []
    reach = max((high - low) / 2 for low, high in ends)
    over = " over seeds and images" if several else ""
    return [f"95 % intervals{over} reach at most {reach:.1f} points either way."]


def _not_learned(rows: Sequence[TableRow]) -> list[str]:
    """The seeds whose clean accuracy is not above chance; a row with one seed shows that itself."""
    cells = [cell for row in rows if len(row.seeds) > 1 for cell in row.not_learned]
    return [f"{NOT_LEARNED}: {_names(cells)}"] if cells else []


def _doubts(measures: Sequence[tuple[SeedMeasures, Row]]) -> list[str]:
    found: dict[Reason, dict[str, list[Row]]] = {}
    for cell, measure in measures:
        for reason in verdict_on(measure).doubts:
            found.setdefault(reason, {}).setdefault(cell.name, []).append(measure)
    return [
        f"{DOUBTED} {reason} ({'; '.join(f'{name}, {_all_of(doubted)}' for name, doubted in cells.items())})"
        for reason, cells in found.items()
    ]


def _all_of(measures: Sequence[Row]) -> str:
    """``clean, fgsm at 2/255 and 8/255``."""
    budgets: dict[str, list[str]] = {}
    for measure in measures:
        budgets.setdefault(short_numbers(measure["attack"]), []).append(eps_text(measure["eps"]))
    return ", ".join(
        attack if attack == CLEAN else f"{attack} at {' and '.join(eps)}" for attack, eps in budgets.items()
    )


def _unchecked(measures: Sequence[tuple[SeedMeasures, Row]]) -> list[str]:
    """The reasons why a cell was not checked; they hold at every eps."""
    found: dict[Reason, list[SeedMeasures]] = {}
    for cell, measure in measures:
        verdict = verdict_on(measure)
        for reason in verdict.unchecked if verdict.state is Trust.unchecked else ():
            found.setdefault(reason, []).append(cell)
    return [f"{UNCHECKED} {Trust.unchecked}: {reason} ({_names(cells)})" for reason, cells in found.items()]


def _names(cells: Iterable[SeedMeasures]) -> str:
    """Names of cells, grouped by backbone and defense: ``a + none, seeds 0, 1; b + none, seed 0``."""
    seeds: dict[str, dict[int, None]] = {}
    for cell in cells:
        seeds.setdefault(cell.label, {})[cell.seed] = None
    return "; ".join(
        f"{label}, seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"
        for label, found in seeds.items()
    )
