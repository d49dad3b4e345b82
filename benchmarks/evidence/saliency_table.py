"""The table of saliency shares."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_tin.benchmarks.evidence.saliency import SaliencyShare
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.specs import eps_text, short_numbers


def saliency_table(shares: Sequence[SaliencyShare]) -> Table:
    """Shares of the attribution inside the box, in %, one row per cell, method and kind of image."""
    return Table(
        title="Share of the attribution inside the object's box, in %",
        columns=("cell", "method", "images", "n", "share", "area", "difference"),
        rows=tuple(map(_row, shares)),
        label_columns=3,
        notes=(
            "[ ] 95 % interval (Student's t over the images). area: share of the image's area inside the box,"
            " the score of a uniform map. difference: share - area.",
        ),
    )


def _row(share: SaliencyShare) -> tuple[str, ...]:
    attack = f" ({short_numbers(share.attack)} at {eps_text(share.eps)})" if share.attack else ""
    return (
        share.cell,
        share.method,
        f"{share.kind}{attack}",
        f"{share.images:,}",
        _percent(share.mean, share.low, share.high),
        f"{100 * share.chance:.1f}",
        _percent(share.above_chance, share.above_low, share.above_high, sign="+"),
    )


def _percent(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{100 * mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
