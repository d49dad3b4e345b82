"""The tables of a run, made from its records.

Rows are cells; the seeds of a backbone and defense share a row. Columns are top-1 and top-5, clean and under
each attack at each eps, in percent. A figure under attack also shows its change from the clean one in points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from robustbench_tin.benchmarks.reporting.cell_figure import cell_figure
from robustbench_tin.benchmarks.reporting.curve_table import curve_tables
from robustbench_tin.benchmarks.reporting.figure import Standing
from robustbench_tin.benchmarks.reporting.sorting import sorted_tables
from robustbench_tin.benchmarks.reporting.table import NOT_LEARNED, Table
from robustbench_tin.benchmarks.reporting.table_columns import Column, columns_of
from robustbench_tin.benchmarks.reporting.table_notes import table_notes
from robustbench_tin.benchmarks.reporting.table_rows import TRANSFER, TableRow, table_rows
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN
from robustbench_tin.specs import short_numbers
from robustbench_tin.text import counted

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.reporting.transfer_table import Worst

Standings = Callable[[Sequence[TableRow], Sequence[Column]], Sequence[Sequence[Standing]]]
"""Returns the standing of each figure, by row and column."""


def tables(
    records: pd.DataFrame,
    eps: Sequence[float] | None = None,
    worst: Worst | None = None,
    *,
    by_attack: bool = False,
    per_seed: bool = False,
    intervals: bool = False,
    sort: str | None = None,
    standings: Standings | None = None,
) -> list[Table]:
    """One table for all attacks; also one for certified accuracy and one for minimum eps if measured.

    Args:
        records: one row per measurement, see :class:`robustbench_tin.benchmarks.runs.records.Record`.
        eps: the budgets to show; None: all. The clean columns are always shown.
        worst: accuracy on images made on other cells, shown in separate columns.
        by_attack: make one table per attack instead.
        per_seed: one row per seed; otherwise a row has the mean over seeds, with their standard deviation.
        intervals: show the 95 % interval of each figure.
        sort: heading of the column to sort rows by, or ``clean``, ``worst``, ``top1``, ``top5``; None: the
            records' order.
        standings: finds the best figures of each column; None: no figure is marked.

    Raises:
        InvalidSettingError: if there is no column ``sort``.
    """
    if records.empty:
        return []
    attacks = [name for name in records["attack"].unique() if name not in (CLEAN, CERTIFIED)]
    groups = [[attack] for attack in attacks] if by_attack else [attacks] if attacks else []
    groups += [[CERTIFIED]] if (records["attack"] == CERTIFIED).any() else []
    rows = table_rows(records, worst, per_seed=per_seed)
    made = []
    for group in groups or [[CLEAN]]:
        columns = columns_of(records, group, eps, worst)
        # A defense that certifies nothing is left out of the certified table.
        shown = [row for row in rows if group != [CERTIFIED] or _is_certified(row)]
        made.append((_table(records, group, shown, columns, worst, standings, intervals=intervals), columns))
    made += [(table, []) for table in curve_tables(rows, [*attacks], intervals=intervals)]
    return sorted_tables(made, sort) if sort is not None else [table for table, _ in made]


def _table(
    records: pd.DataFrame,
    attacks: Sequence[str],
    rows: Sequence[TableRow],
    columns: Sequence[Column],
    worst: Worst | None,
    standings: Standings | None,
    *,
    intervals: bool,
) -> Table:
    figures = [[cell_figure(row, column) for column in columns] for row in rows]
    if standings is not None:
        places = standings(rows, columns)
        figures = [
            [text.standing_as(place) for text, place in zip(*pair, strict=True)]
            for pair in zip(figures, places, strict=True)
        ]
    labels = _labels(rows)
    transferred = [column.eps for column in columns if column.attack == TRANSFER]
    table = Table(
        title=_title(records, attacks),
        columns=(*labels, *(column.name for column in columns)),
        rows=tuple((*_label(row, labels), *texts) for row, texts in zip(rows, figures, strict=True)),
        label_columns=len(labels),
        notes=table_notes(
            rows,
            columns,
            [text for texts in figures for text in texts],
            worst.notes(transferred) if worst is not None else (),
        ),
        dimmed=frozenset(number for number, row in enumerate(rows) if row.not_learned),
        minor=frozenset(
            len(labels) + number
            for number, column in enumerate(columns)
            if column.rank > min(each.rank for each in columns)
        ),
        minor_name="top-5",
        explained=True,
    )
    return table if intervals else table.without(interval=True)


def _labels(rows: Sequence[TableRow]) -> list[str]:
    """The headings of the columns that name a row."""
    several = any(len(row.seeds) > 1 for row in rows)
    seeds = {cell.seed for row in rows for cell in row.seeds}
    with_mark = any(row.not_learned for row in rows)
    return [
        *("model", "defense"),
        *(["seeds"] if several else ["seed"] if len(seeds) > 1 else []),
        *([""] if with_mark else []),
    ]


def _label(row: TableRow, labels: Sequence[str]) -> list[str]:
    few = len(row.not_learned)
    mark = "" if not few else NOT_LEARNED if few == len(row.seeds) else f"{few} {NOT_LEARNED}"
    texts = {
        "model": row.model,
        "defense": row.defense,
        "seeds": str(len(row.seeds)),
        "seed": str(row.seeds[0].seed),
        "": mark,
    }
    return [texts[label] for label in labels]


def _is_certified(row: TableRow) -> bool:
    return any(attack == CERTIFIED for cell in row.seeds for attack, _ in cell.measures)


def _title(records: pd.DataFrame, attacks: Sequence[str]) -> str:
    first = records[records["attack"].isin(attacks)].iloc[0]
    data = f"{first['data']}, {counted(first['classes'], 'class', 'classes')}, {counted(first['n'], 'image')}"
    if list(attacks) == [CLEAN]:
        return f"Accuracy in % when clean: {data}"
    if list(attacks) == [CERTIFIED]:
        proved = f"no attack within {first['norm']} eps can reduce (certified lower bound)"
        return f"Accuracy in % that {proved}: {data}"
    by_conditions: dict[str, list[str]] = {}
    for attack in attacks:
        row = records[records["attack"] == attack].iloc[0].to_dict()
        by_conditions.setdefault(_conditions(row), []).append(short_numbers(attack))
    under = " and ".join(f"{', '.join(names)} ({said})" for said, names in by_conditions.items())
    return f"Accuracy in % under {under}: {data}"


def _conditions(row: dict[Any, Any]) -> str:
    """The conditions of an attack."""
    conditions = [row["norm"], row["mode"]]
    conditions += [f"{row['eot']} passes per gradient"] if row["eot"] > 1 else []
    conditions += ["oblivious: on the bare classifier"] if row["oblivious"] else []
    conditions += ["rounded to 8 bits"] if row["eight_bit"] else []
    return ", ".join(conditions)
