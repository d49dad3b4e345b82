"""The leaderboard and the table of all measurements."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_tin.benchmarks.charts.accuracy_points import (
    AccuracyPoint,
    budgets,
    clean_of,
    lowest_at,
)
from robustbench_tin.benchmarks.charts.eps_chart import NORMS, TRUST_TEXTS, interval_text
from robustbench_tin.benchmarks.charts.saliency_chart import over_seeds
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.benchmarks.evidence.choices import Kind
from robustbench_tin.benchmarks.evidence.saliency import SaliencyShare
from robustbench_tin.benchmarks.evidence.saliency_files import read_saliency
from robustbench_tin.benchmarks.planning.cell_names import cell_name
from robustbench_tin.benchmarks.report.page_table import Cell, Column, PageTable
from robustbench_tin.benchmarks.reporting.figure import MISSING
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.specs import eps_text, short_numbers

_TONES = {Trust.ok: "good", Trust.unchecked: "warn", Trust.doubted: "bad"}
_NOT_LEARNED = "not learned"


def leaderboard(runs: Sequence[ShownRun], points: Sequence[AccuracyPoint]) -> PageTable:
    """One row per backbone and defense: clean top-1, and the lowest top-1 under any attack at each eps.

    The highest figure at the largest eps comes first. Rows whose clean accuracy is not above chance, or whose
    figure is unreliable, come last.

    Args:
        runs: the runs to show.
        points: their top-1 accuracies.
    """
    eps = budgets(points)
    shares = {run.name: read_saliency(run.run.path) for run in runs}
    looks = any(shares.values())
    norms = sorted({NORMS.get(run.run.plan.norm, run.run.plan.norm) for run in runs})
    rows = [
        (
            _key(points, run.label(row), eps),
            _row(run, row.model, row.defense, points, eps, shares, looks=looks),
        )
        for run in runs
        for row in run.rows
    ]
    columns = [
        *([Column("run", choices=True)] if len(runs) > 1 else []),
        Column("model", choices=True, label=True),
        Column("defense", choices=True),
        Column("clean top-1, %", number=True),
        *(Column(f"lowest top-1 at {eps_text(value)}, %", number=True) for value in eps),
        *([Column("attribution in box, %", number=True)] if looks else []),
        Column("trust", choices=True),
    ]
    return PageTable(
        "leaderboard",
        f"Top-1 accuracy, clean and the lowest under any attack ({' and '.join(norms)})",
        columns,
        [row for _, row in sorted(rows, key=lambda pair: pair[0])],
        (
            "Brackets: 95 % interval; with several seeds it covers seeds and images.",
            "After each lowest top-1 follows the attack that achieved it.",
            *(["Attribution in box: see Saliency."] if looks else []),
        ),
    )


def _key(points: Sequence[AccuracyPoint], cell: str, eps: Sequence[float]) -> tuple[bool, float, float]:
    worst = lowest_at(points, cell, eps[-1]) if eps else None
    clean = clean_of(points, cell)
    below = clean is None or not clean.learned or (worst is not None and worst.trust is Trust.doubted)
    return below, -_or_zero(worst), -_or_zero(clean)


def _or_zero(point: AccuracyPoint | None) -> float:
    return 0.0 if point is None or point.top1 is None else point.top1


def _row(
    run: ShownRun,
    model: str,
    defense: str,
    points: Sequence[AccuracyPoint],
    eps: Sequence[float],
    shares: dict[str, list[SaliencyShare]],
    *,
    looks: bool,
) -> list[Cell]:
    cell = run.cell_label(model, defense)
    own = [point for point in points if point.cell == cell]
    clean = clean_of(own, cell)
    return [
        *([Cell(run.name)] if run.name else []),
        Cell(model),
        Cell(defense),
        figure_cell(clean),
        *(figure_cell(lowest_at(own, cell, value), with_attack=True) for value in eps),
        *([_share(run, model, defense, shares[run.name])] if looks else []),
        _verdict(own),
    ]


def figure_cell(point: AccuracyPoint | None, *, with_attack: bool = False) -> Cell:
    """A figure with its interval and, if asked for, its attack."""
    if point is None:
        return Cell(MISSING)
    if point.top1 is None:
        return Cell(point.figure.number, None, tone="warn")
    interval = interval_text(point).replace(" to ", ", ")
    detail = f"[{interval}]" + (f" {short_numbers(point.attack)}" if with_attack else "")
    return Cell(point.figure.number, point.top1, detail, "bad" if point.trust is Trust.doubted else "")


def _share(run: ShownRun, model: str, defense: str, shares: Sequence[SaliencyShare]) -> Cell:
    """The share inside the box of the first method, on clean images."""
    names = {
        cell_name(cell) for cell in run.cells if (cell.model, short_numbers(cell.defense)) == (model, defense)
    }
    own = [share for share in shares if share.cell in names and share.kind == Kind.clean]
    own = [share for share in own if share.method == own[0].method]
    if not own:
        return Cell(MISSING)
    mean, low, high = (100 * value for value in over_seeds(own))
    return Cell(f"{mean:.1f}", mean, f"[{low:.1f}, {high:.1f}] {own[0].method}")


def _verdict(points: Sequence[AccuracyPoint]) -> Cell:
    """The worst verdict of a row."""
    if not all(point.learned for point in points):
        return Cell(_NOT_LEARNED, tone="warn")
    states = [point.trust for point in points if point.attack != CLEAN and point.top1 is not None]
    if not states:
        return Cell(MISSING)
    worst = max(states, key=list(Trust).index)
    bad = sum(state is worst for state in states)
    detail = "" if worst is Trust.ok else f"{bad} of {len(states)} figures"
    return Cell(TRUST_TEXTS[worst], detail=detail, tone=_TONES[worst])


def measurements(
    runs: Sequence[ShownRun], points: Sequence[AccuracyPoint], top5: Sequence[AccuracyPoint]
) -> PageTable:
    """One row per measurement: top-1 and top-5 with their intervals, and the verdict.

    Args:
        runs: the runs to show.
        points: their top-1 accuracies.
        top5: their top-5 accuracies, in the same order.
    """
    several = len(runs) > 1
    rows = [
        [
            *([Cell(point.run)] if several else []),
            Cell(point.model),
            Cell(point.defense),
            Cell(short_numbers(point.attack)),
            Cell(eps_text(point.eps), point.eps),
            figure_cell(point),
            figure_cell(other),
            Cell(MISSING)
            if point.top1 is None or point.attack == CLEAN
            else Cell(TRUST_TEXTS[point.trust], tone=_TONES[point.trust]),
        ]
        for point, other in zip(points, top5, strict=True)
    ]
    columns = [
        *([Column("run", choices=True)] if several else []),
        Column("model", choices=True, label=True),
        Column("defense", choices=True),
        Column("attack", choices=True),
        Column("eps", number=True, choices=True),
        Column("top-1, %", number=True),
        Column("top-5, %", number=True),
        Column("trust", choices=True),
    ]
    return PageTable("measurements", "All measurements, with 95 % intervals", columns, rows)
