"""Clean against robust accuracy, with the Pareto front: one panel per budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from robustbench_tin.benchmarks.charts.accuracy_points import (
    AccuracyPoint,
    accuracy_points,
    budgets,
    clean_of,
    lowest_at,
)
from robustbench_tin.benchmarks.charts.eps_chart import (
    NORMS,
    TRUST_TEXTS,
    interval_text,
    reliability_marks,
    tooltip,
)
from robustbench_tin.benchmarks.charts.picture import Picture, shown
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.charts.theme import PANEL_WIDTH, colour_scale, shape_scale
from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.errors import RunError
from robustbench_tin.specs import eps_text

if TYPE_CHECKING:
    import altair as alt

_FRONT = "#808080"


def pareto_chart(runs: Sequence[ShownRun]) -> Picture:
    """Clean top-1 against the lowest top-1 under any attack, at each budget, with 95 % intervals.

    The front joins the cells that no other beats in both accuracies. It leaves out unreliable figures and
    cells whose clean accuracy is not above chance.

    Raises:
        RunError: if nothing was attacked.
    """
    import altair as alt

    points = [point for run in runs for point in accuracy_points(run)]
    rows = pareto_rows(points, {run.name: run.run.plan.norm for run in runs})
    if not rows:
        raise RunError("no cell has both a clean and an attacked figure; expected a run with an eps above 0")
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    names = list(dict.fromkeys(row["variant"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    chart = (
        _points(names, models)
        .properties(width=PANEL_WIDTH, height=PANEL_WIDTH)
        .facet(alt.Facet("panel:N", sort=panels, title=None), columns=2 if len(panels) in (2, 4) else 3)
        .resolve_scale(y="independent")
    )
    on_front = ", ".join(dict.fromkeys(row["cell"] for row in rows if row["front"])) or "none"
    return Picture(
        chart,
        {"points": rows},
        f"Clean top-1 against the lowest top-1 under attack: {', '.join(panels)}. On the front: {on_front}.",
    )


def _points(names: Sequence[str], models: Sequence[str]) -> alt.LayerChart:
    import altair as alt

    base = alt.Chart(alt.NamedData("points"))
    x = alt.X("clean:Q", title="clean top-1 accuracy, %", scale=alt.Scale(zero=False, nice=True))
    y = alt.Y("robust:Q", title="lowest top-1 under attack, %", scale=alt.Scale(zero=True, nice=True))
    colour = alt.Color("variant:N", title="defense", scale=colour_scale(names))
    front = (
        base.transform_filter(alt.datum.front)
        .mark_line(interpolate="step-before", strokeDash=[4, 3], strokeWidth=1.2, opacity=0.6, aria=False)
        .encode(x=x, y=y, order="clean:Q", color=alt.value(_FRONT))
    )
    across = base.mark_rule(opacity=0.45, aria=False).encode(
        x="clean_low:Q", x2="clean_high:Q", y=y, color=colour
    )
    upright = base.mark_rule(opacity=0.45, aria=False).encode(x=x, y="low:Q", y2="high:Q", color=colour)
    full, hollow = reliability_marks(
        base,
        x=x,
        y=y,
        color=colour,
        shape=alt.Shape("model:N", title="model", scale=shape_scale(models)),
        tooltip=tooltip(
            *("cell", "panel:budget", "clean_shown:clean, %", "clean_interval:95 % interval, clean"),
            *("attack:lowest under", "shown:top-1, %", "interval:95 % interval", "trust"),
        ),
    )
    layers: alt.LayerChart = front + across + upright + full + hollow
    return layers


def pareto_rows(points: Sequence[AccuracyPoint], norms: dict[str, str]) -> list[dict[str, Any]]:
    """One row per cell and budget with both figures; each row says whether it is on the budget's front.

    Args:
        points: the accuracies of all runs.
        norms: the norm of each run, by name; each norm has its own panels.
    """
    rows = []
    for panel, norm, eps in dict.fromkeys(
        (f"{NORMS.get(norm, norm)} eps {eps_text(eps)}", norm, eps)
        for eps in budgets(points)
        for norm in sorted(set(norms.values()))
    ):
        own = [point for point in points if norms[point.run] == norm]
        pairs = [
            (clean_of(own, cell), lowest_at(own, cell, eps))
            for cell in dict.fromkeys(each.cell for each in own)
        ]
        known = [(clean, robust) for clean, robust in pairs if clean and robust and clean.top1 is not None]
        best = front([(clean, robust) for clean, robust in known if _counts(clean) and _counts(robust)])
        rows += [_row(panel, clean, robust, on_front=robust in best) for clean, robust in known]
    return rows


def front(pairs: Iterable[tuple[AccuracyPoint, AccuracyPoint]]) -> list[AccuracyPoint]:
    """The robust accuracies on the front: no other pair beats one of its figures and equals the other."""
    best: list[AccuracyPoint] = []
    height = -1.0
    for _, robust in sorted(pairs, key=lambda pair: (-_top1(pair[0]), -_top1(pair[1]))):
        if _top1(robust) > height:
            best.append(robust)
            height = _top1(robust)
    return best


def _counts(point: AccuracyPoint) -> bool:
    return point.trust is not Trust.doubted and point.learned


def _top1(point: AccuracyPoint) -> float:
    return -1.0 if point.top1 is None else point.top1


def _row(panel: str, clean: AccuracyPoint, robust: AccuracyPoint, *, on_front: bool) -> dict[str, Any]:
    name = f"{clean.run}: " if clean.run else ""
    return {
        "panel": panel,
        "cell": shown(clean.cell),
        "model": shown(f"{name}{clean.model}"),
        "variant": shown(clean.defense),
        "clean": clean.top1,
        "clean_low": clean.low,
        "clean_high": clean.high,
        "clean_shown": clean.figure.number,
        "clean_interval": interval_text(clean),
        "attack": shown(robust.threat),
        "robust": robust.top1,
        "low": robust.low,
        "high": robust.high,
        "shown": robust.figure.number,
        "interval": interval_text(robust),
        "trust": TRUST_TEXTS[robust.trust],
        "front": on_front,
    }
