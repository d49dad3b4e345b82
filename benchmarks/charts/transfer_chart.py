"""Transfer as a heat map: images made on one cell, measured on another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustbench_tin.benchmarks.charts.eps_chart import NORMS, tooltip
from robustbench_tin.benchmarks.charts.picture import Picture, shown
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.charts.theme import percent_colour
from robustbench_tin.benchmarks.codes.status import StatusCode
from robustbench_tin.errors import RunError
from robustbench_tin.specs import eps_text, short_numbers

_SQUARE = 44
# Above this, cividis is light enough for black text.
_LIGHT = 45


def transfer_chart(runs: Sequence[ShownRun]) -> Picture:
    """Top-1 of each target (column) on images made on each source (row): a panel per attack and budget.

    Raises:
        RunError: if no run has transfers between shown cells.
    """
    import altair as alt

    rows = transfer_rows(runs)
    if not rows:
        raise RunError("no transfer was measured; run robust-tin transfer RUN first")
    cells = list(dict.fromkeys(row["source"] for row in rows) | dict.fromkeys(row["target"] for row in rows))
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    base = alt.Chart(alt.NamedData("transfers")).encode(
        x=alt.X(
            "target:N",
            sort=cells,
            title="columns: measured on; rows: made on",
            axis=alt.Axis(labelAngle=-40, domain=False),
        ),
        y=alt.Y("source:N", sort=cells, title=None, axis=alt.Axis(domain=False)),
    )
    squares = base.mark_rect().encode(
        color=percent_colour("top1", "top-1, %", length=150),
        tooltip=tooltip(
            *("source:made on", "target:measured on", "panel:attack", "shown:top-1, %"),
            *("interval:95 % interval", "clean:clean top-1, %"),
        ),
    )
    texts = base.mark_text(fontSize=11, aria=False).encode(
        text="shown:N",
        color=alt.condition(alt.datum.top1 > _LIGHT, alt.value("black"), alt.value("white")),
    )
    chart = (squares + texts).properties(width=alt.Step(_SQUARE), height=alt.Step(0.7 * _SQUARE))
    return Picture(
        chart.facet(alt.Facet("panel:N", sort=panels, title=None), columns=1 if len(cells) > 8 else 2),
        {"transfers": rows},
        f"Top-1 accuracy on images made on another cell: {'; '.join(panels)}. Darker is lower.",
    )


def transfer_rows(runs: Sequence[ShownRun]) -> list[dict[str, Any]]:
    """One row per measured source, target, attack and budget."""
    rows = []
    for run in runs:
        cells = {(cell.model, cell.defense, cell.seed) for cell in run.cells}
        several = len(run.run.plan.seeds) > 1
        clean = {_key(row): row["top1"] for row in run.records.to_dict("records") if row["attack"] == "clean"}
        for row in run.transfers.to_dict("records"):
            source, target = _key(row, "source_"), _key(row)
            if row["status_code"] == StatusCode.ok and {source, target} <= cells:
                rows.append(
                    {
                        "panel": _panel(run, row),
                        "source": _label(run, source, several=several),
                        "target": _label(run, target, several=several),
                        "top1": round(100 * row["top1"], 3),
                        "shown": f"{100 * row['top1']:.0f}",
                        "interval": f"{100 * row['top1_low']:.1f} to {100 * row['top1_high']:.1f}",
                        "clean": f"{100 * clean[target]:.1f}" if clean.get(target) is not None else "",
                    }
                )
    return rows


def _panel(run: ShownRun, row: Mapping[Any, Any]) -> str:
    norm = NORMS.get(row["norm"], row["norm"])
    return shown(run.qualified(f"{short_numbers(row['attack'])}, {norm} eps {eps_text(row['eps'])}"))


def _key(row: Mapping[Any, Any], prefix: str = "") -> tuple[str, str, int]:
    return str(row[f"{prefix}model"]), str(row[f"{prefix}defense"]), int(row[f"{prefix}seed"])


def _label(run: ShownRun, key: tuple[str, str, int], *, several: bool) -> str:
    model, defense, seed = key
    label = run.cell_label(model, defense)
    return shown(f"{label}, seed {seed}" if several else label)
