"""Accuracy against eps, with bands: one panel per attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robustbench_tin.benchmarks.charts.accuracy_points import AccuracyPoint, accuracy_points
from robustbench_tin.benchmarks.charts.picture import Picture, shown
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.charts.theme import PANEL_HEIGHT, PANEL_WIDTH, colour_scale, shape_scale
from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN
from robustbench_tin.errors import RunError
from robustbench_tin.specs import eps_text, short_numbers

if TYPE_CHECKING:
    import altair as alt

NORMS = {"linf": "L∞", "l2": "L2"}
TRUST_TEXTS = {Trust.ok: "reliable", Trust.unchecked: "not checked", Trust.doubted: "unreliable"}
# More lines cannot be told apart in one panel: then each backbone gets a row of panels.
_MOST_LINES = 7


def eps_chart(runs: Sequence[ShownRun]) -> Picture:
    """Top-1 accuracy against eps: one line per backbone and defense, one panel per attack.

    Bands are 95 % intervals; with several seeds they cover seeds and images. Figures that the trust checks
    doubt are hollow.

    Raises:
        RunError: if nothing was attacked.
    """
    import altair as alt

    points = [point for run in runs for point in accuracy_points(run)]
    rows = _rows(points)
    if not rows:
        raise RunError("no attack was measured; expected a run with an eps above 0, such as --eps 0,0.03")
    by_model = len({row["cell"] for row in rows}) > _MOST_LINES
    series = "variant" if by_model else "cell"
    names = list(dict.fromkeys(row[series] for row in rows))
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    norms = {run.run.plan.norm for run in runs}
    lines = _lines(series, names, "defense" if by_model else "model + defense", _eps_axis(rows, norms))
    grid: dict[str, Any] = {"column": alt.Column("attack:N", sort=attacks, title=None)}
    if by_model:
        grid["row"] = alt.Row("model:N", sort=list(dict.fromkeys(row["model"] for row in rows)), title=None)
    width = PANEL_WIDTH if len(attacks) > 1 else round(1.6 * PANEL_WIDTH)
    return Picture(
        lines.properties(width=width, height=PANEL_HEIGHT).facet(**grid),
        {"points": rows},
        f"Top-1 accuracy against eps under {', '.join(attacks)}, for {', '.join(names)}.",
    )


def _lines(series: str, names: Sequence[str], title: str, x: alt.X) -> alt.LayerChart:
    import altair as alt

    base = alt.Chart(alt.NamedData("points")).encode(x=x)
    picked = alt.selection_point(name="picked", fields=[series], bind="legend")
    colour = alt.Color(f"{series}:N", title=title, scale=colour_scale(names))
    faded = alt.condition(picked, alt.value(1), alt.value(0.12))
    title_y, scale, axis = (
        "top-1 accuracy, %",
        alt.Scale(domain=[0, 100]),
        alt.Axis(values=[*range(0, 101, 20)]),
    )
    y = alt.Y("top1:Q", title=title_y, scale=scale, axis=axis)
    bands = base.mark_area(aria=False).encode(
        y=alt.Y("low:Q", title=title_y, scale=scale, axis=axis),
        y2="high:Q",
        color=colour,
        opacity=alt.condition(picked, alt.value(0.15), alt.value(0.03)),
    )
    lines = base.mark_line(aria=False).encode(y=y, color=colour, opacity=faded)
    full, hollow = reliability_marks(
        base,
        y=y,
        color=colour,
        shape=alt.Shape(f"{series}:N", title=title, scale=shape_scale(names)),
        opacity=faded,
        tooltip=tooltip(
            "cell", "attack", "eps_text:eps", "shown:top-1, %", "interval:95 % interval", "trust"
        ),
    )
    layers: alt.LayerChart = bands + lines + full.add_params(picked) + hollow
    return layers.resolve_legend(color="shared", shape="shared")  # type: ignore[no-any-return]


def reliability_marks(base: alt.Chart, **encodings: Any) -> tuple[alt.Chart, alt.Chart]:
    """Filled points for reliable figures, and hollow points for doubted ones."""
    import altair as alt

    doubted = alt.datum.trust == TRUST_TEXTS[Trust.doubted]
    full = base.transform_filter(~doubted).mark_point(size=60, filled=True, opacity=1)
    hollow = base.transform_filter(doubted).mark_point(size=60, filled=False, strokeWidth=1.8, opacity=1)
    return full.encode(**encodings), hollow.encode(**encodings)


def _eps_axis(rows: Sequence[dict[str, Any]], norms: set[str]) -> alt.X:
    """Ticks at the measured budgets, written as the user types them."""
    import altair as alt

    budgets = sorted({row["eps"] for row in rows})
    texts = ", ".join(f"'{value:.9f}': '{eps_text(value)}'" for value in budgets)
    return alt.X(
        "eps:Q",
        title=eps_title(norms),
        axis=alt.Axis(
            values=budgets,
            labelExpr=f"({{{texts}}})[format(datum.value, '.9f')]",
            labelOverlap="greedy",
            grid=False,
        ),
    )


def eps_title(norms: set[str]) -> str:
    """The title of an axis of budgets, with their unit."""
    (norm, *others) = sorted(NORMS.get(norm, norm) for norm in norms)
    return f"eps ({' or '.join([norm, *others])}; pixel values from 0 to 1)"


def tooltip(*fields: str) -> list[alt.Tooltip]:
    """The tooltip of a mark: names of text fields, each with its title after a colon."""
    import altair as alt

    pairs = [field.partition(":") for field in fields]
    return [alt.Tooltip(f"{name}:N", title=title or name) for name, _, title in pairs]


def _rows(points: Sequence[AccuracyPoint]) -> list[dict[str, Any]]:
    """One row per point; the clean point belongs to the line of each attack."""
    rows = []
    attacked = [point for point in points if point.attack != CLEAN]
    for cell in dict.fromkeys(point.cell for point in attacked):
        own = [point for point in points if point.cell == cell]
        for attack in dict.fromkeys(point.attack for point in own if point.attack != CLEAN):
            line = [point for point in own if point.attack == attack]
            clean = [point for point in own if point.attack == CLEAN and attack != CERTIFIED]
            rows += [_row(point, attack) for point in (*clean, *line) if point.top1 is not None]
    return rows


def _row(point: AccuracyPoint, attack: str) -> dict[str, Any]:
    name = f"{point.run}: " if point.run else ""
    return {
        "cell": shown(point.cell),
        "model": shown(f"{name}{point.model}"),
        "variant": shown(point.defense),
        "attack": shown(short_numbers(attack)),
        "eps": point.eps,
        "eps_text": eps_text(point.eps),
        "top1": _rounded(point.top1),
        "low": _rounded(point.low),
        "high": _rounded(point.high),
        "shown": point.figure.number,
        "interval": interval_text(point),
        "trust": TRUST_TEXTS[point.trust],
    }


def interval_text(point: AccuracyPoint) -> str:
    """The ends of the point's interval: ``41.5 to 48.2``."""
    return "" if point.low is None or point.high is None else f"{point.low:.1f} to {point.high:.1f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
