"""The accuracies in charts: those of the tables, with their intervals and verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.codes.verdict import Reason, Trust
from robustbench_tin.benchmarks.reporting.cell_figure import cell_figure, verdict_on
from robustbench_tin.benchmarks.reporting.figure import Figure
from robustbench_tin.benchmarks.reporting.table_columns import Column
from robustbench_tin.benchmarks.reporting.table_rows import TRANSFER, TableRow
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN, WORST_CASE
from robustbench_tin.specs import eps_text, short_numbers


@dataclass(frozen=True)
class AccuracyPoint:
    """One accuracy of one backbone and defense: the mean over its seeds.

    Attributes:
        run: name of the run; empty if only one run is shown.
        model: the backbone.
        defense: spec of the defense.
        cell: name of both, after that of the run.
        attack: spec of the attack, ``clean``, ``worst-case`` or ``certified``.
        eps: budget; 0 for the clean accuracy.
        top1: accuracy in percent; None if there is no figure.
        low: lower end of its 95 % interval.
        high: upper end of that interval.
        figure: the figure in the form of the tables.
        trust: state of the worst verdict over seeds.
        reasons: reasons of the verdicts of all seeds.
        status: the reason why there is no figure; empty if there is one.
        learned: False if the clean accuracy of a seed is known to be not above chance.
    """

    run: str
    model: str
    defense: str
    cell: str
    attack: str
    eps: float
    top1: float | None
    low: float | None
    high: float | None
    figure: Figure
    trust: Trust
    reasons: tuple[Reason, ...]
    status: str
    learned: bool

    @property
    def threat(self) -> str:
        """Attack and budget for people: ``pgd at 8/255``."""
        return CLEAN if self.attack == CLEAN else f"{short_numbers(self.attack)} at {eps_text(self.eps)}"


def accuracy_points(shown: ShownRun, rank: int = 1) -> list[AccuracyPoint]:
    """All accuracies of a run's cells: for each row clean first, then by attack and increasing eps.

    Args:
        shown: the run.
        rank: 1 for top-1, 5 for top-5.
    """

    def made() -> list[AccuracyPoint]:
        return [_point(shown, row, attack, eps, rank) for row in shown.rows for attack, eps in _measured(row)]

    return shown.kept(("accuracy points", rank), made)


def _measured(row: TableRow) -> list[tuple[str, float]]:
    keys = dict.fromkeys(key for cell in row.seeds for key in cell.measures if key[0] != TRANSFER)
    attacks = list(dict.fromkeys(attack for attack, _ in keys))
    return sorted(keys, key=lambda key: (attacks.index(key[0]), key[1]))


def _point(shown: ShownRun, row: TableRow, attack: str, eps: float, rank: int) -> AccuracyPoint:
    figure = cell_figure(row, Column("", attack, eps, rank))
    measures = [cell.measures.get((attack, eps)) for cell in row.seeds]
    verdicts = [verdict_on(measure) for measure in measures]
    order = list(Trust)
    statuses = [str(measure["status"]) for measure in measures if measure is not None]
    low, high = figure.interval or (None, None)
    return AccuracyPoint(
        run=shown.name,
        model=row.model,
        defense=row.defense,
        cell=shown.label(row),
        attack=attack,
        eps=eps,
        top1=figure.value,
        low=low,
        high=high,
        figure=figure,
        trust=max((verdict.state for verdict in verdicts), key=order.index),
        reasons=tuple(dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)),
        status="" if figure.value is not None else "; ".join(dict.fromkeys(statuses)) or "not measured yet",
        learned=not row.not_learned,
    )


def lowest(points: Iterable[AccuracyPoint]) -> AccuracyPoint | None:
    """The lowest accuracy under an attack among some points; None without such a point.

    If a single attack equals the worst case of all, the attack is returned.
    """
    attacked = [each for each in points if each.attack not in (CLEAN, CERTIFIED) and each.top1 is not None]
    return min(attacked, key=lambda each: (each.top1 or 0.0, each.attack == WORST_CASE), default=None)


def lowest_at(points: Sequence[AccuracyPoint], cell: str, eps: float) -> AccuracyPoint | None:
    """The lowest accuracy of one cell under an attack at one budget; None without such a point."""
    return lowest(each for each in points if each.cell == cell and each.eps == eps)


def clean_of(points: Sequence[AccuracyPoint], cell: str) -> AccuracyPoint | None:
    """The clean accuracy of a cell."""
    return next((each for each in points if each.cell == cell and each.attack == CLEAN), None)


def budgets(points: Iterable[AccuracyPoint]) -> list[float]:
    """The budgets above 0 of any attack."""
    return sorted({each.eps for each in points if each.attack not in (CLEAN, CERTIFIED)})
