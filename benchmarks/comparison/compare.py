"""``robust-tin compare``: compare the measurements of two sets of cells."""

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
    """The result of a comparison; a notebook and ``print`` show its table.

    Attributes:
        differences: one for each pair of groups, measurement and rank; p-values are corrected over all.
        notes: one line for each measurement that could not be compared.
        images: the data set, classes and images that all cells were measured on.
    """

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    images: MeasuredImages

    @property
    def table(self) -> Table:
        """The table, one row for each difference."""
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
        """One row for each difference; accuracies, differences and intervals are fractions in [-1, 1]."""
        import pandas as pd

        return pd.DataFrame([_fields(difference) for difference in self.differences])


def compare(
    first: str | Path, second: str | Path | None = None, *, cell: str = "*", by_seed: bool = False
) -> Comparison:
    """Compare cells of one run or of two runs, measurement by measurement.

    If both sides have one seed, the test is McNemar's exact test on the same images, with Newcombe's
    interval. If a side has several seeds, test and interval are Student's t over the seeds. Holm's method
    corrects the p-values over the table (see :mod:`robustbench_tin.benchmarks.statistics` for the papers).

    Args:
        first: side ``A``, as ``RUN`` or ``RUN:PATTERN``.
        second: side ``B``, in the same form; None compares the defenses of ``first`` with each other.
        cell: pattern of cells for a side without a pattern of its own.
        by_seed: compare seed by seed instead of over all seeds.

    Returns:
        The differences of all measurements that both sides have.

    Raises:
        RobustTinError: if a run or cell does not exist, if the pairs to compare are ambiguous, if the sides
            were measured on different images, or if they have no measurement in common.
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
        RunError: if cells were measured on different images, or not measured yet.
    """
    known: MeasuredImages | None = None
    for side, group in ((side, group) for pair in pairs for side, group in zip("AB", pair, strict=True)):
        for records in group.records:
            if not records:
                raise RunError(
                    f"run '{group.run.path}' has no measurements of {group.label} yet; give the run's command"
                    " again to continue it"
                )
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
