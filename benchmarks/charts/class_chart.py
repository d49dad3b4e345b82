"""Accuracy by class, lowest first, clean and under attack: one panel per backbone and defense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robustbench_tin.benchmarks.charts.class_accuracy import ClassAccuracy, results_by_class
from robustbench_tin.benchmarks.charts.eps_chart import tooltip
from robustbench_tin.benchmarks.charts.picture import Picture, shown
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.charts.theme import PANEL_WIDTH, colour_scale, shape_scale
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.errors import RunError

if TYPE_CHECKING:
    import altair as alt

_COLUMNS = 3
_MOST = 20
UNDER_ATTACK = "under attack"


def class_chart(runs: Sequence[ShownRun]) -> Picture:
    """The 20 classes with the lowest top-1 under attack of each backbone and defense, with 95 % intervals.

    Raises:
        RunError: if no run has the labels of its images.
    """
    import altair as alt

    rows = class_rows(runs)
    if not rows:
        raise RunError(
            "the run has no labels of its images, because an earlier version wrote it; run its bench"
            " command again to add them"
        )
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    chart = class_panel().facet(alt.Facet("cell:N", sort=cells, title=None), columns=_COLUMNS)
    return Picture(
        chart.resolve_scale(y="independent"),
        {"classes": rows},
        f"Top-1 accuracy by class, the lowest first, clean and under attack, for {', '.join(cells)}.",
    )


def class_panel() -> alt.LayerChart:
    """The panel of one backbone and defense; its data set is named ``classes``."""
    import altair as alt

    kinds = [CLEAN, UNDER_ATTACK]
    base = alt.Chart(alt.NamedData("classes")).encode(
        y=alt.Y("place:O", sort=None, title=None, axis=alt.Axis(labelExpr="split(datum.value, '\\t')[1]")),
        color=alt.Color("kind:N", title=None, scale=colour_scale(kinds)),
    )
    rules = base.mark_rule(strokeWidth=1.5, opacity=0.6, aria=False).encode(
        x=alt.X("low:Q", title="top-1 accuracy, %", scale=alt.Scale(domain=[0, 100])), x2="high:Q"
    )
    dots = base.mark_point(size=55, filled=True, opacity=1).encode(
        x=alt.X("top1:Q", title="top-1 accuracy, %", scale=alt.Scale(domain=[0, 100])),
        shape=alt.Shape("kind:N", title=None, scale=shape_scale(kinds)),
        tooltip=tooltip(
            *("name:class", "cell", "threat:measured", "shown:top-1, %", "interval:95 % interval"),
            "images:images of the class",
        ),
    )
    layers: alt.LayerChart = rules + dots
    return layers.properties(width=PANEL_WIDTH, height=alt.Step(17))


def class_rows(runs: Sequence[ShownRun]) -> list[dict[str, Any]]:
    """One row per class and measurement; only the worst classes of each backbone and defense."""
    rows = []
    for run in runs:
        found: dict[str, dict[str, list[ClassAccuracy]]] = {}
        for each in results_by_class(run):
            found.setdefault(each.cell, {})[each.threat] = each.accuracies()
        for cell, by_threat in found.items():
            for place, number in enumerate(_worst(list(by_threat.values()))):
                rows += [_row(cell, threat, place, of[number]) for threat, of in by_threat.items()]
    return rows


def _worst(measured: Sequence[Sequence[ClassAccuracy]]) -> list[int]:
    """The indices of the classes with the lowest accuracies; the last measurement is compared first."""
    numbers = range(len(measured[-1]))
    return sorted(numbers, key=lambda number: [each[number].top1 for each in reversed(measured)])[:_MOST]


def _row(cell: str, threat: str, place: int, found: ClassAccuracy) -> dict[str, Any]:
    return {
        "cell": shown(cell),
        # Two classes may share a name; the axis shows the text after the tab.
        "place": f"{place:03}\t{shown(found.name)}",
        "name": shown(found.name),
        "kind": CLEAN if threat == CLEAN else UNDER_ATTACK,
        "threat": shown(threat),
        "top1": round(found.top1, 3),
        "low": round(found.low, 3),
        "high": round(found.high, 3),
        "shown": f"{found.top1:.1f}",
        "interval": f"{found.low:.1f} to {found.high:.1f}",
        "images": str(found.images),
    }
