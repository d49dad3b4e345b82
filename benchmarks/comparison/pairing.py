"""Which cells of the one side are compared with which of the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

from robustbench_tin.benchmarks.comparison.selection import SeedGroup, select_groups
from robustbench_tin.benchmarks.planning.cell_names import listed
from robustbench_tin.errors import InvalidSettingError

Pair = tuple[SeedGroup, SeedGroup]


def pairs_of(first: str | Path, second: str | Path | None, cell: str = "*") -> list[Pair]:
    """The pairs that a comparison is about; both of a pair may differ in one thing, or in anything if the
    sides name one group each.

    Args:
        first: ``RUN`` or ``RUN:PATTERN``.
        second: likewise; None: the groups of ``first`` with each other.
        cell: pattern of cells for a side that has none.

    Raises:
        RobustTinError: if a side stands for nothing, or if it is not clear what to compare with what.
    """
    ours = select_groups(first, cell)
    if second is None:
        return _within(ours)
    return _between(ours, select_groups(second, cell))


def per_seed(pairs: Sequence[Pair]) -> list[Pair]:
    """The same, seed by seed; of a pair those seeds that both have.

    Raises:
        InvalidSettingError: if no pair has a seed in common.
    """
    parted = [
        (one.of_seed(seed), other.of_seed(seed))
        for one, other in pairs
        for seed in one.seeds
        if seed in other.seeds
    ]
    if not parted:
        one, other = pairs[0]
        raise InvalidSettingError(
            f"per-seed got cells without a common seed ({one.label}; {other.label}); leave it out"
        )
    return parted


def _within(groups: Sequence[SeedGroup]) -> list[Pair]:
    """Defenses of the same backbone; backbones of the same defense if there is but one defense."""
    every = list(combinations(groups, 2))
    pairs = _alike(every, lambda group: group.model) or _alike(every, lambda group: group.defense)
    if not pairs:
        raise InvalidSettingError(
            f"nothing to compare in '{groups[0].run.path}' ({listed([each.label for each in groups])}); give"
            " a second run, or cells of two defenses or backbones"
        )
    return pairs


def _between(ours: Sequence[SeedGroup], theirs: Sequence[SeedGroup]) -> list[Pair]:
    every = [(one, other) for one in ours for other in theirs if not one.is_same(other)]
    if not every:
        raise InvalidSettingError(f"both sides are the same cell ({ours[0].label}); expected two")
    if len(ours) == len(theirs) == 1:
        return every
    same = [pair for pair in every if _key(pair[0]) == _key(pair[1])]
    if same:
        return same
    found = _alike(every, lambda group: group.model) or _alike(every, lambda group: group.defense)
    if found:
        return found
    if 1 in (len(ours), len(theirs)):
        return every
    raise InvalidSettingError(
        f"the sides have no backbone and no defense in common ({listed([each.label for each in ours])};"
        f" {listed([each.label for each in theirs])}); name one cell on one side, such as RUN:MODEL/DEFENSE"
    )


def _key(group: SeedGroup) -> tuple[str, str]:
    return group.model, group.defense


def _alike(pairs: Sequence[Pair], by: Callable[[SeedGroup], str]) -> list[Pair]:
    return [pair for pair in pairs if by(pair[0]) == by(pair[1])]
