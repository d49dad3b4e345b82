"""Training curves: loss, accuracy and, if measured, accuracy under attack, by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from robustbench_tin.benchmarks.charts.eps_chart import tooltip
from robustbench_tin.benchmarks.charts.picture import Picture, Rows, shown
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.charts.theme import PANEL_HEIGHT, PANEL_WIDTH, colour_scale, dash_scale
from robustbench_tin.errors import RunError
from robustbench_tin.training.curves import Point, read_curves

LOSS, TOP1, TOP5, ATTACKED = "loss", "top-1, %", "top-5, %", "top-1 under attack, %"
_PANELS = (LOSS, TOP1, TOP5, ATTACKED)
_LINES = {
    "train_loss": (LOSS, "training"),
    "val_loss": (LOSS, "validation"),
    "train_top1": (TOP1, "training"),
    "val_top1": (TOP1, "validation"),
    "train_top5": (TOP5, "training"),
    "val_top5": (TOP5, "validation"),
    "val_fgsm": (ATTACKED, "validation, FGSM"),
    "val_pgd5": (ATTACKED, "validation, PGD-5"),
    "monitor_fgsm": (ATTACKED, "monitor, FGSM"),
    "monitor_pgd5": (ATTACKED, "monitor, PGD-5"),
}


def curves_chart(runs: Sequence[ShownRun]) -> Picture:
    """The training curves of each backbone and defense: means over seeds; bands from lowest to highest.

    Colours distinguish several cells; dashes distinguish training and validation.

    Raises:
        RunError: if there are no curves.
    """
    import altair as alt

    rows = curve_rows(runs)
    if not rows:
        raise RunError(
            "the run has no training curves; bench writes them after each epoch, unless with --curves none"
        )
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    panels = panels_of(rows)
    charts = [curve_panel(panel, cells, rows) for panel in panels]
    chart = (
        alt.hconcat(*charts)
        if len(charts) < 4
        else alt.vconcat(*map(_side_by_side, (charts[:2], charts[2:])))
    )
    if len(cells) == 1:
        chart = chart.properties(title=cells[0])
    return Picture(
        chart.resolve_scale(color="shared", strokeDash="shared"),
        {"curves": rows},
        f"Training curves, {', '.join(panels)}, of {', '.join(cells)}.",
    )


def panels_of(rows: Rows) -> list[str]:
    """The panels that have curves, in order."""
    return [panel for panel in _PANELS if any(row["panel"] == panel for row in rows)]


def _side_by_side(charts: Sequence[Any]) -> Any:
    import altair as alt

    return alt.hconcat(*charts)


def curve_panel(panel: str, cells: Sequence[str], rows: Rows, *, own_legend: bool = False) -> Any:
    """One panel; its data set is named ``curves``.

    Args:
        panel: name of the panel.
        cells: names that get a colour each; with a single name, colours distinguish the lines.
        rows: the data, from which the names of the lines are taken.
        own_legend: the panel stands alone, so its legend lists only its own lines.
    """
    import altair as alt

    lines = _lines(rows)
    alone = len(cells) == 1
    told = alt.Legend(
        values=_lines([row for row in rows if row["panel"] == panel]) if own_legend else lines,
        symbolType="stroke",
        symbolSize=500,
        symbolStrokeWidth=2,
    )
    field, names, title = ("line", lines, None) if alone else ("cell", cells, "model + defense")
    legend = told if alone else alt.Undefined
    base = (
        alt.Chart(alt.NamedData("curves"))
        .transform_filter(alt.datum.panel == panel)
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(format="d", tickMinStep=1), scale=alt.Scale(zero=False)),
            color=alt.Color(f"{field}:N", title=title, scale=colour_scale(names), legend=legend),
            detail="cell:N",
        )
    )
    scale = alt.Scale(zero=True) if panel == LOSS else alt.Scale(domain=[0, 100])
    dash = alt.StrokeDash("line:N", title=None, scale=dash_scale(lines), legend=told)
    bands = base.mark_area(opacity=0.15, aria=False).encode(
        y=alt.Y("low:Q", title=panel, scale=scale), y2="high:Q", detail=["cell:N", "line:N"]
    )
    strokes = base.mark_line(aria=False).encode(y=alt.Y("value:Q", title=panel, scale=scale), strokeDash=dash)
    dots = base.mark_point(size=18, filled=True, opacity=1).encode(
        y=alt.Y("value:Q", title=panel, scale=scale),
        tooltip=tooltip("cell", "line", "epoch_text:epoch", f"shown:{panel}", "seeds"),
    )
    return (bands + strokes + dots).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)


def _lines(rows: Rows) -> list[str]:
    """The lines that occur, in order."""
    found = {row["line"] for row in rows}
    return [line for line in dict.fromkeys(name for _, name in _LINES.values()) if line in found]


def curve_rows(runs: Sequence[ShownRun]) -> list[dict[str, Any]]:
    """One row per epoch and line, for each trained backbone and defense."""
    rows = []
    for run in runs:
        curves: dict[str, list[list[Point]]] = {}
        for cell in run.cells:
            file = run.run.curves_file(cell)
            if file.exists():
                curves.setdefault(run.cell_label(cell.model, cell.defense), []).append(read_curves(file))
        for label, seeds in curves.items():
            rows += list(_rows(label, seeds))
    return rows


def _rows(label: str, seeds: Sequence[Sequence[Point]]) -> Iterator[dict[str, Any]]:
    for measure, (panel, line) in _LINES.items():
        scale = 1 if panel == LOSS else 100
        values: dict[int, list[float]] = {}
        for points in seeds:
            for point in points:
                value = getattr(point, measure)
                if value is not None:
                    values.setdefault(point.epoch, []).append(scale * value)
        for epoch, found in sorted(values.items()):
            yield {
                "cell": shown(label),
                "panel": panel,
                "line": line,
                "epoch": epoch,
                "epoch_text": str(epoch),
                "value": float(f"{fmean(found):.6g}"),
                "low": float(f"{min(found):.6g}"),
                "high": float(f"{max(found):.6g}"),
                "shown": f"{fmean(found):.3f}" if panel == LOSS else f"{fmean(found):.1f}",
                "seeds": str(len(found)),
            }
