"""The charts of the page, as Vega-Lite specifications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robustbench_tin.benchmarks.charts.class_accuracy import ResultsByClass
from robustbench_tin.benchmarks.charts.class_chart import class_panel
from robustbench_tin.benchmarks.charts.confusion_chart import confusion_panel, confusion_rows
from robustbench_tin.benchmarks.charts.curves_chart import curve_panel, panels_of
from robustbench_tin.benchmarks.charts.picture import Picture, Rows
from robustbench_tin.benchmarks.charts.theme import ON_PAGE

CHOSEN = "chosen"
"""The parameter with the backbone and defense that a chart shows."""


@dataclass(frozen=True)
class PageChart:
    """One chart.

    Attributes:
        name: short and unique: part of the ids in the page.
        specification: Vega-Lite specification, with data.
        description: a description for people who do not see the chart.
    """

    name: str
    specification: Mapping[str, Any]
    description: str


@dataclass(frozen=True)
class ChartGroup:
    """Charts that show one backbone and defense at a time.

    Attributes:
        name: short and unique.
        choices: the names to choose from; the first one is shown first.
        charts: charts that all show the chosen name.
    """

    name: str
    choices: Sequence[str] = field(default=())
    charts: Sequence[PageChart] = field(default=())


def page_chart(name: str, picture: Picture) -> PageChart:
    """A picture as a chart of the page."""
    return PageChart(name, picture.specification(ON_PAGE), picture.description)


def curve_group(rows: Rows) -> ChartGroup:
    """Training curves, one chart per panel."""
    charts = [
        _chosen(
            f"curves-{number}",
            curve_panel(panel, ["one"], rows, own_legend=True),
            {"curves": [row for row in rows if row["panel"] == panel]},
            f"Training curves: {panel}.",
        )
        for number, panel in enumerate(panels_of(rows))
    ]
    return ChartGroup("curves", _cells(rows), charts)


def class_group(rows: Rows) -> ChartGroup:
    """Accuracy by class."""
    chart = _chosen("classes", class_panel(), {"classes": rows}, "Top-1 accuracy by class, the lowest first.")
    return ChartGroup("classes", _cells(rows), [chart])


def confusion_group(found: Iterable[ResultsByClass]) -> ChartGroup:
    """True against predicted class: one chart for the clean images and one under attack."""
    rows = confusion_rows(found)
    charts = [
        _chosen(
            f"confusion-{number}",
            confusion_panel(kind),
            {"confusion": [row for row in rows if row["kind"] == kind]},
            f"Confusion of classes, {kind}: rows are true classes, columns predicted ones.",
        )
        for number, kind in enumerate(dict.fromkeys(row["kind"] for row in rows))
    ]
    return ChartGroup("confusion", _cells(rows), charts)


def _chosen(name: str, panel: Any, data: Mapping[str, Rows], description: str) -> PageChart:
    """A panel that shows only the rows of the chosen backbone and defense."""
    import altair as alt

    first = next((str(row["cell"]) for rows in data.values() for row in rows), "")
    chart = panel.add_params(alt.param(name=CHOSEN, value=first)).transform_filter(f"datum.cell === {CHOSEN}")
    return PageChart(name, Picture(chart, data, description).specification(ON_PAGE), description)


def _cells(rows: Rows) -> list[str]:
    return list(dict.fromkeys(str(row["cell"]) for row in rows))
