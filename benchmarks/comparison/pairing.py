"""Choose the pairs of groups that a comparison compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

from robustbench_tin.benchmarks.comparison.selection import SeedGroup, select_groups
from robustbench_tin.benchmarks.planning.cell_names import listed
from robustbench_tin.errors import InvalidSettingError

Pair = tuple[SeedGroup, SeedGroup]


def pairs_of(first: str | Path, second: str | Path | None, cell: str = "*") -> list[Pair]:
    """The pairs of groups to compare.

    The groups of a pair share the backbone or the defense. They may differ in both if each side names only
    one group.

    Args:
        first: side ``A``, as ``RUN`` or ``RUN:PATTERN``.
        second: side ``B``, in the same form; None compares the groups of ``first`` with each other.
        cell: pattern of cells for a side without a pattern of its own.

    Raises:
        RobustTinError: if a side matches no cell, or if the pairs are ambiguous.
    """
    ours = select_groups(first, cell)
    if second is None:
        return _within(ours)
    return _between(ours, select_groups(second, cell))


def per_seed(pairs: Sequence[Pair]) -> list[Pair]:
    """Split each pair into pairs of single seeds; only seeds that both groups have are kept.

    Args:
        pairs: pairs of groups, at least one.

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
            f"per-seed got cells without a common seed ({one.label}; {other.label}); expected cells that"
            " share a seed: leave the option out"
        )
    return parted


def _within(groups: Sequence[SeedGroup]) -> list[Pair]:
    """Pairs of defenses of the same backbone; if there is only one defense, pairs of backbones."""
    every = list(combinations(groups, 2))
    pairs = _alike(every, lambda group: group.model) or _alike(every, lambda group: group.defense)
    if not pairs:
        raise InvalidSettingError(
            f"nothing to compare in '{groups[0].run.path}' ({listed([each.label for each in groups])});"
            " expected cells of two defenses or two backbones: give more cells or a second run"
        )
    return pairs


def _between(ours: Sequence[SeedGroup], theirs: Sequence[SeedGroup]) -> list[Pair]:
    every = [(one, other) for one in ours for other in theirs if not one.is_same(other)]
    if not every:
        raise InvalidSettingError(
            f"both sides are the same cell ({ours[0].label}); expected two different cells"
        )
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
        f"the sides share no backbone and no defense ({listed([each.label for each in ours])};"
        f" {listed([each.label for each in theirs])}); name a single cell on one side, such as"
        " RUN:MODEL/DEFENSE"
    )


def _key(group: SeedGroup) -> tuple[str, str]:
    return group.model, group.defense


def _alike(pairs: Sequence[Pair], by: Callable[[SeedGroup], str]) -> list[Pair]:
    return [pair for pair in pairs if by(pair[0]) == by(pair[1])]
