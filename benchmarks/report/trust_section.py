"""Trust: the number of reliable figures, and the reason behind each unreliable one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_tin.benchmarks.charts.accuracy_points import AccuracyPoint
from robustbench_tin.benchmarks.charts.eps_chart import TRUST_TEXTS
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.codes.verdict import Reason, Trust
from robustbench_tin.benchmarks.report.page_table import Cell, Column, PageTable
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN


@dataclass(frozen=True)
class TrustCounts:
    """The number of figures under attack, by verdict.

    Attributes:
        reliable: number of figures without objections.
        unchecked: number of figures that the checks could not judge completely.
        unreliable: number of figures that the checks doubt.
        checked: whether the runs had trust checks at all.
    """

    reliable: int
    unchecked: int
    unreliable: int
    checked: bool


def trust_counts(runs: Sequence[ShownRun], points: Sequence[AccuracyPoint]) -> TrustCounts:
    """Count the verdicts on all figures under attack."""
    states = [
        each.trust for each in points if each.attack not in (CLEAN, CERTIFIED) and each.top1 is not None
    ]
    reliable, unchecked, unreliable = (
        states.count(state) for state in (Trust.ok, Trust.unchecked, Trust.doubted)
    )
    return TrustCounts(reliable, unchecked, unreliable, checked=any(run.run.plan.trust for run in runs))


def reasons_table(points: Sequence[AccuracyPoint]) -> PageTable:
    """One row per reason, backbone and defense, with the figures that the reason concerns."""
    found: dict[tuple[Reason, str], list[str]] = {}
    for point in points:
        for reason in point.reasons:
            found.setdefault((reason, point.cell), []).append(point.threat)
    doubts_first = sorted(found.items(), key=lambda item: not item[0][0].is_doubt)
    return PageTable(
        "reasons",
        "Why figures are unreliable or could not be checked",
        [
            Column("model + defense", choices=True, label=True),
            Column("verdict", choices=True),
            Column("reason", wide=True),
            Column("figures", wide=True),
        ],
        [
            [Cell(cell), _verdict(reason), Cell(str(reason)), Cell(", ".join(threats))]
            for (reason, cell), threats in doubts_first
        ],
    )


def failures_table(points: Sequence[AccuracyPoint]) -> PageTable:
    """One row per measurement without a figure, with the reason."""
    return PageTable(
        "failures",
        "Measurements without a figure; none of them counts as robust",
        [Column("model + defense", label=True), Column("measurement"), Column("why", wide=True)],
        [[Cell(each.cell), Cell(each.threat), Cell(each.status)] for each in points if each.status],
        filters=False,
    )


def _verdict(reason: Reason) -> Cell:
    if reason.is_doubt:
        return Cell(TRUST_TEXTS[Trust.doubted], tone="bad")
    return Cell(TRUST_TEXTS[Trust.unchecked], tone="warn")
