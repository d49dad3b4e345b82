"""The share of each cell's attribution inside the object's box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from robustbench_tin.benchmarks.charts.eps_chart import tooltip
from robustbench_tin.benchmarks.charts.picture import Picture, shown
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.charts.theme import PANEL_WIDTH, colour_scale, shape_scale
from robustbench_tin.benchmarks.evidence.saliency import SaliencyShare
from robustbench_tin.benchmarks.evidence.saliency_files import read_saliency
from robustbench_tin.benchmarks.planning.cell_names import cell_name
from robustbench_tin.errors import RunError

_COLUMNS = 3
_STEP = 13


def saliency_chart(runs: Sequence[ShownRun]) -> Picture:
    """The mean share inside the box with its 95 % interval: a panel per method, a mark per kind of image.

    The short line is the share of the area inside the box, the score of a uniform map.

    Raises:
        RunError: if no shown cell has saliency results.
    """
    import altair as alt

    rows = saliency_rows(runs)
    if not rows:
        raise RunError("no saliency was measured; run robust-tin saliency RUN first")
    kinds, methods = (list(dict.fromkeys(row[name] for row in rows)) for name in ("kind", "method"))
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    title = "attribution inside the box, %"
    base = alt.Chart(alt.NamedData("saliency")).encode(
        y=alt.Y("cell:N", sort=cells, title=None),
        yOffset=alt.YOffset("kind:N", sort=kinds),
        color=alt.Color("kind:N", title="image", scale=colour_scale(kinds)),
    )
    scale = alt.Scale(zero=True, nice=True)
    rules = base.mark_rule(strokeWidth=1.5, opacity=0.6, aria=False).encode(
        x=alt.X("low:Q", title=title, scale=scale), x2="high:Q"
    )
    chance = base.mark_tick(thickness=2, opacity=0.9, aria=False).encode(
        x=alt.X("chance:Q", title=title, scale=scale)
    )
    dots = base.mark_point(size=55, filled=True, opacity=1).encode(
        x=alt.X("mean:Q", title=title, scale=scale),
        shape=alt.Shape("kind:N", title="image", scale=shape_scale(kinds)),
        tooltip=tooltip(
            *("cell", "method", "kind:image", "shown:inside the box, %", "interval:95 % interval"),
            *("chance_text:area of the box, %", "images"),
        ),
    )
    panel = (rules + chance + dots).properties(width=PANEL_WIDTH, height=alt.Step(_STEP))
    return Picture(
        panel.facet(alt.Facet("method:N", sort=methods, title=None), columns=_COLUMNS),
        {"saliency": rows},
        f"Share of the attribution inside the object's box by {', '.join(methods)}, for {', '.join(cells)}.",
    )


def saliency_rows(runs: Sequence[ShownRun]) -> list[dict[str, Any]]:
    """One row per backbone and defense, method and kind of image: the mean over seeds."""
    rows = []
    for run in runs:
        shares = {(share.cell, share.method, share.kind): share for share in read_saliency(run.run.path)}
        for row in run.rows:
            names = [cell_name(cell) for cell in run.cells_of(row)]
            for method, kind in dict.fromkeys(key[1:] for key in shares):
                found = [shares[name, method, kind] for name in names if (name, method, kind) in shares]
                if found:
                    rows.append(_row(run.label(row), found))
    return rows


def _row(cell: str, seeds: Sequence[SaliencyShare]) -> dict[str, Any]:
    first = seeds[0]
    mean, low, high = (100 * value for value in over_seeds(seeds))
    chance = 100 * fmean(share.chance for share in seeds)
    return {
        "cell": shown(cell),
        "method": shown(first.method),
        "kind": shown(first.kind),
        "mean": round(mean, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "chance": round(chance, 3),
        "shown": f"{mean:.1f}",
        "interval": f"{low:.1f} to {high:.1f}",
        "chance_text": f"{chance:.1f}",
        "images": str(first.images),
    }


def over_seeds(seeds: Sequence[SaliencyShare]) -> tuple[float, float, float]:
    """The mean over seeds with its 95 % interval, in [0, 1].

    Two errors add up, as in tables: that of the images, which all seeds share, and that of the seeds
    (Student's t). The distance to an end is the root of the sum of squares.
    """
    mean = fmean(share.mean for share in seeds)
    below, above = (
        fmean(share.mean - share.low for share in seeds),
        fmean(share.high - share.mean for share in seeds),
    )
    reach = 0.0
    if len(seeds) > 1:
        from scipy.special import stdtrit

        reach = (
            float(stdtrit(len(seeds) - 1, 0.975))
            * stdev(share.mean for share in seeds)
            / math.sqrt(len(seeds))
        )
    return mean, max(0.0, mean - math.hypot(below, reach)), min(1.0, mean + math.hypot(above, reach))
