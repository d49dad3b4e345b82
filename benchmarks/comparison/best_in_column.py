"""Mark the best figure of each column of a results table, and the figures not significantly different."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.benchmarks.comparison.difference import Level, difference_of, level_of
from robustbench_tin.benchmarks.comparison.selection import SeedGroup
from robustbench_tin.benchmarks.reporting.figure import Standing
from robustbench_tin.benchmarks.reporting.results_table import Standings
from robustbench_tin.benchmarks.reporting.table_columns import Column
from robustbench_tin.benchmarks.reporting.table_rows import TRANSFER, TableRow
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.benchmarks.statistics.chances import SIGNIFICANT, holm
from robustbench_tin.specs import short_numbers


def standings_in(run: RunDirectory) -> Standings:
    """Make a function that marks the figures of a table of this run.

    The function tests each row against the best row of a column, as :func:`compare` does, and corrects the
    p-values by Holm's method over the table. A doubted figure gets no mark, nor does a figure of a model
    whose clean accuracy is not above chance.

    Args:
        run: the run; its results per image are read.
    """

    def standings(rows: Sequence[TableRow], columns: Sequence[Column]) -> list[list[Standing]]:
        groups = [_group(run, row) for row in rows]
        contests = [
            contest
            for place, column in enumerate(columns)
            if column.attack != TRANSFER and (contest := _contest(place, column, rows, groups)) is not None
        ]
        tests = [(contest, row) for contest in contests for row in contest.others]
        chances = [contest.chance(groups, row) for contest, row in tests]
        found = [[Standing.none] * len(columns) for _ in rows]
        for contest in contests:
            for row in (contest.best, *contest.equal):
                found[row][contest.place] = Standing.best
        for (contest, row), chance in zip(tests, holm(chances), strict=True):
            if chance > SIGNIFICANT:
                found[row][contest.place] = Standing.tie
        return found

    return standings


@dataclass(frozen=True)
class _Contest:
    """The rows of one column that can get a mark.

    Attributes:
        place: number of the column.
        column: the column.
        best: number of the best row; of the first one if several rows are equally good.
        equal: numbers of the rows that are exactly as good as the best.
        others: numbers of the remaining rows.
    """

    place: int
    column: Column
    best: int
    equal: tuple[int, ...]
    others: tuple[int, ...]

    def chance(self, groups: Sequence[SeedGroup], row: int) -> float:
        """The p-value of the difference between a row and the best row."""
        column = self.column
        difference = difference_of(
            groups[row], groups[self.best], column.attack, column.eps, f"top{column.rank}"
        )
        assert difference.chance is not None
        return difference.chance


def _group(run: RunDirectory, row: TableRow) -> SeedGroup:
    seeds = {cell.seed for cell in row.seeds}
    cells = (
        cell
        for cell in run.plan.cells()
        if (cell.model, short_numbers(cell.defense)) == (row.model, row.defense) and cell.seed in seeds
    )
    return SeedGroup(run, tuple(cells))


def _contest(
    place: int, column: Column, rows: Sequence[TableRow], groups: Sequence[SeedGroup]
) -> _Contest | None:
    """The best row and the rows to compare with it; None if fewer than two rows count."""
    means = dict(_means(column, rows, groups))
    if len(means) < 2:
        return None
    best = max(means, key=lambda number: means[number])
    others = [number for number in means if number != best]
    equal = tuple(number for number in others if means[number] == means[best])
    return _Contest(place, column, best, equal, tuple(number for number in others if number not in equal))


def _means(
    column: Column, rows: Sequence[TableRow], groups: Sequence[SeedGroup]
) -> Iterator[tuple[int, float]]:
    for number, (row, group) in enumerate(zip(rows, groups, strict=True)):
        level = _level(column, group)
        if level.mean is not None and level.trust is not Trust.doubted and not row.not_learned:
            yield number, level.mean


def _level(column: Column, group: SeedGroup) -> Level:
    records = [cell.get((column.attack, column.eps)) for cell in group.records]
    return level_of(records, f"top{column.rank}")
