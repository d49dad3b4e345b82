"""Tables of the worst classes and of the most frequent confusions."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_tin.benchmarks.charts.class_accuracy import Confusion
from robustbench_tin.benchmarks.report.page_table import Cell, Column, PageTable

_WORST, _MOST_FREQUENT = 5, 5


def worst_classes(rows: Sequence[dict[str, object]]) -> PageTable:
    """The five worst classes of each backbone and defense, clean and under attack.

    Args:
        rows: see :func:`robustbench_tin.benchmarks.charts.class_chart.class_rows`.
    """
    found: dict[tuple[str, str], dict[str, dict[str, object]]] = {}
    for row in rows:
        found.setdefault((str(row["cell"]), str(row["place"])), {})[str(row["kind"])] = row
    kept: dict[str, int] = {}
    lines = []
    for (cell, _), by_kind in found.items():
        kept[cell] = kept.get(cell, 0) + 1
        if kept[cell] <= _WORST:
            any_row = next(iter(by_kind.values()))
            lines.append(
                [
                    Cell(cell),
                    Cell(str(any_row["name"])),
                    Cell(str(any_row["images"]), float(str(any_row["images"]))),
                    *(_figure(by_kind.get(kind)) for kind in ("clean", "under attack")),
                ]
            )
    return PageTable(
        "worst-classes",
        "The classes with the lowest top-1 under attack",
        [
            Column("model + defense", choices=True, label=True),
            Column("class"),
            Column("images", number=True),
            Column("clean, %", number=True),
            Column("under attack, %", number=True),
        ],
        lines,
    )


def _figure(row: dict[str, object] | None) -> Cell:
    if row is None:
        return Cell("–")
    interval = str(row["interval"]).replace(" to ", ", ")
    return Cell(str(row["shown"]), float(str(row["top1"])), f"[{interval}]")


def frequent_confusions(found: Sequence[tuple[str, str, Sequence[Confusion]]]) -> PageTable:
    """The five most frequent confusions of each backbone and defense in each measurement.

    Args:
        found: name of backbone and defense, the measurement, and the confusions.
    """
    return PageTable(
        "confusions",
        "The most frequent confusions",
        [
            Column("model + defense", choices=True, label=True),
            Column("measurement", choices=True),
            Column("class"),
            Column("taken for"),
            Column("images of the class, %", number=True),
        ],
        [
            [
                Cell(cell),
                Cell(threat),
                Cell(each.name),
                Cell(each.taken_for),
                Cell(
                    f"{100 * each.count / each.images:.1f}",
                    100 * each.count / each.images,
                    f"{each.count:,} of {each.images:,}",
                ),
            ]
            for cell, threat, confusions in found
            for each in confusions[:_MOST_FREQUENT]
        ],
    )
