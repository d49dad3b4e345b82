"""Confusion of classes as a heat map: true against predicted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from robustbench_tin.benchmarks.charts.class_accuracy import ResultsByClass
from robustbench_tin.benchmarks.charts.class_chart import UNDER_ATTACK
from robustbench_tin.benchmarks.charts.eps_chart import tooltip
from robustbench_tin.benchmarks.charts.picture import shown
from robustbench_tin.benchmarks.charts.theme import percent_colour
from robustbench_tin.benchmarks.runs.records import CLEAN

if TYPE_CHECKING:
    import altair as alt

_MOST = 12
_STEP = 26
_NOTHING = "#00224e"
"""The colour of 0."""


def confusion_panel(kind: str) -> alt.Chart:
    """The panel of one backbone and defense; its data set is named ``confusion``.

    Args:
        kind: ``clean`` or ``under attack``, shown as its title.
    """
    import altair as alt

    base = alt.Chart(alt.NamedData("confusion")).encode(
        x=alt.X(
            "predicted:N", sort=alt.SortField("column"), title="predicted", axis=alt.Axis(labelAngle=-50)
        ),
        y=alt.Y("label:N", sort=alt.SortField("row"), title="true class"),
    )
    squares = base.mark_rect().encode(
        color=percent_colour("share", "of the class, %", length=120),
        tooltip=tooltip(
            *(
                "cell",
                "threat:measured",
                "label:true class",
                "predicted",
                "count:images",
                "shown:of the class, %",
            )
        ),
    )
    panel: alt.Chart = squares.properties(
        title=kind,
        width=alt.Step(_STEP),
        height=alt.Step(0.8 * _STEP),
        view=alt.ViewBackground(fill=_NOTHING),
    )
    return panel


def confusion_rows(found: Iterable[ResultsByClass]) -> list[dict[str, Any]]:
    """One row per pair of classes that occurs; of many classes only the twelve with the most errors."""
    return [row for each in found for row in _rows(each)]


def _rows(found: ResultsByClass) -> Iterator[dict[str, Any]]:
    matrix = found.confusion_matrix
    if matrix is None:
        return
    off_diagonal = matrix - np.diag(np.diag(matrix))
    errors = off_diagonal.sum(axis=1) + off_diagonal.sum(axis=0)
    kept = np.sort(np.argsort(-errors, kind="stable")[:_MOST])
    images = matrix.sum(axis=1)
    for row, label in enumerate(kept):
        for column, other in enumerate(kept):
            # The background stands for 0.
            if images[label] and (matrix[label, other] or label == other):
                share = 100 * matrix[label, other] / images[label]
                yield {
                    "cell": shown(found.cell),
                    "kind": CLEAN if found.threat == CLEAN else UNDER_ATTACK,
                    "threat": shown(found.threat),
                    "label": shown(found.labels.name(int(label))),
                    "predicted": shown(found.labels.name(int(other))),
                    "row": row,
                    "column": column,
                    "count": str(matrix[label, other]),
                    "share": round(float(share), 2),
                    "shown": f"{share:.1f}",
                }
