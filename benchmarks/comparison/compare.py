"""``robust-tin compare``: the measurements of two sets of cells beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_tin.benchmarks.comparison.difference import Difference, differences_of, measure_name
from robustbench_tin.benchmarks.comparison.pairing import Pair, pairs_of, per_seed
from robustbench_tin.benchmarks.comparison.selection import SeedGroup
from robustbench_tin.benchmarks.runs.same_measurement import MeasuredImages
from robustbench_tin.benchmarks.statistics.chances import holm
from robustbench_tin.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.reporting.table import Table


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison. A notebook shows its table, and so does ``print``.

    Attributes:
        differences: one a pair, measurement and rank, with p-values corrected over all of them.
        notes: lines on what could not be compared.
        images: data set, classes and images that all were measured on.
    """

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    images: MeasuredImages

    @property
    def table(self) -> Table:
        """A row a difference."""
        from robustbench_tin.benchmarks.comparison.comparison_table import comparison_table

        return comparison_table(self.differences, self.notes, self.images)

    def __repr__(self) -> str:
        """The table as a terminal shows it."""
        from robustbench_tin.benchmarks.reporting.terminal import tables_text

        return tables_text([self.table])

    def _repr_html_(self) -> str:
        from robustbench_tin.benchmarks.reporting.html import table_html

        return table_html(self.table)

    @property
    def frame(self) -> pd.DataFrame:
        """A row a difference; accuracies, differences and their intervals are fractions."""
        import pandas as pd

        return pd.DataFrame([_fields(difference) for difference in self.differences])


def compare(
    first: str | Path, second: str | Path | None = None, *, cell: str = "*", by_seed: bool = False
) -> Comparison:
    """Compare cells of one run or of two, measurement by measurement.

    With one seed on both sides the test is McNemar's exact one on the same images, and the interval
    Newcombe's; with several on a side, Student's t over the seeds. p-values are corrected by Holm over the
    table.

    Args:
        first: ``RUN`` or ``RUN:PATTERN``, the side ``A``.
        second: likewise, the side ``B``; None: the defenses of ``first`` with each other.
        cell: pattern of cells for a side that has none.
        by_seed: compare seed by seed.

    Raises:
        RobustTinError: if there is no such run or cell, if it is not clear what to compare with what, or if
            the sides were measured on other images.
    """
    pairs = pairs_of(first, second, cell)
    if by_seed:
        pairs = per_seed(pairs)
    images = _require_same_images(pairs)
    found: list[Difference] = []
    notes: list[str] = []
    for one, other in pairs:
        differences, problems = differences_of(one, other)
        found += differences
        notes += [*problems, *_only_in_one(one, other)]
    if not found:
        why = f": {notes[0]}" if notes else ""
        raise RunError(f"'{first}' and '{second or first}' have no measurement in common{why}")
    return Comparison(tuple(_corrected(found)), tuple(dict.fromkeys(notes)), images)


def _require_same_images(pairs: Sequence[Pair]) -> MeasuredImages:
    """The images that all cells were measured on.

    Raises:
        RunError: if some were measured on others, or not at all.
    """
    known: MeasuredImages | None = None
    for side, group in ((side, group) for pair in pairs for side, group in zip("AB", pair, strict=True)):
        for records in group.records:
            if not records:
                raise RunError(f"run '{group.run.path}' has no measurements of {group.label} yet")
            here = MeasuredImages.of(next(iter(records.values())))
            problem = None if known is None else here.difference(known, f"in {side}", "in A")
            if problem is not None:
                raise RunError(f"the sides cannot be compared: {problem}")
            known = known or here
    assert known is not None
    return known


def _only_in_one(first: SeedGroup, second: SeedGroup) -> Iterator[str]:
    keys = [{key for records in group.records for key in records} for group in (first, second)]
    for side, only in (("A", keys[0] - keys[1]), ("B", keys[1] - keys[0])):
        if only:
            names = ", ".join(measure_name(*key) for key in sorted(only))
            yield f"Only in {side}: {names}."


def _corrected(found: Sequence[Difference]) -> list[Difference]:
    tested = [number for number, each in enumerate(found) if each.chance is not None]
    corrected = dict(zip(tested, holm([found[number].chance or 0.0 for number in tested]), strict=True))
    return [replace(each, corrected=corrected.get(number)) for number, each in enumerate(found)]


def _fields(difference: Difference) -> dict[str, Any]:
    low, high = difference.interval or (None, None)
    changes = difference.changes
    sides = (("a", difference.first, difference.a), ("b", difference.second, difference.b))
    names = {
        f"{field}_{side}": value
        for side, group, _ in sides
        for field, value in (
            ("run", str(group.run.path)),
            ("model", group.model),
            ("defense", group.defense),
            ("seeds", " ".join(map(str, group.seeds))),
        )
    }
    levels = {
        f"{field}_{side}": value
        for side, _, level in sides
        for field, value in (
            ("accuracy", level.mean),
            ("deviation", level.deviation),
            ("trust", level.trust.value),
        )
    }
    return {
        **names,
        "attack": difference.attack,
        "norm": difference.norm,
        "eps": difference.eps,
        "rank": difference.rank,
        "n": difference.images,
        **levels,
        "difference": difference.value,
        "low": low,
        "high": high,
        "test": None if difference.test is None else difference.test.value,
        "lost": None if changes is None else changes.lost,
        "won": None if changes is None else changes.won,
        "p": difference.chance,
        "p_holm": difference.corrected,
    }
