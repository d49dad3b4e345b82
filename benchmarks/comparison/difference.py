"""Compare one measurement of two groups of cells: accuracies, difference, interval and p-value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.benchmarks.comparison.selection import SeedGroup
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.benchmarks.runs.same_measurement import settings_of
from robustbench_tin.benchmarks.statistics.paired import Changes, difference_interval
from robustbench_tin.benchmarks.statistics.spread import Spread
from robustbench_tin.specs import eps_text, short_numbers

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from robustbench_tin.benchmarks.runs.records import Record

    Hits = npt.NDArray[np.bool_]

_RANKS = ("top1", "top5")


class Test(StrEnum):
    """The significance test of a difference."""

    __test__ = False  # pytest must not collect this class

    mcnemar = "McNemar"
    student = "t over seeds"


@dataclass(frozen=True)
class Level:
    """The accuracy of one side.

    Attributes:
        mean: mean over the seeds, in [0, 1]; None if the measurement is missing or failed.
        deviation: standard deviation over the seeds, a fraction; None for one seed.
        instead: the word that a table shows instead of a missing accuracy, such as ``failed``.
        trust: the worst verdict over the seeds.
    """

    mean: float | None
    deviation: float | None = None
    instead: str = ""
    trust: Trust = Trust.ok


@dataclass(frozen=True)
class Difference:
    """One measurement of both sides, compared.

    Attributes:
        first: group ``A``.
        second: group ``B``.
        attack: canonical spec, or ``clean``, ``worst-case``, ``certified``.
        norm: norm of the budget, ``linf`` or ``l2``.
        eps: the budget in units of the pixel range; 0 for the clean measurement.
        rank: ``top1`` or ``top5``.
        images: number of images.
        a: accuracy of group ``A``.
        b: accuracy of group ``B``.
        interval: 95 % interval of ``b`` minus ``a``, in [-1, 1]; None if an accuracy is missing.
        chance: two-sided p-value without correction; None if an accuracy is missing.
        test: the test behind the p-value; None if an accuracy is missing.
        changes: images lost and won from ``A`` to ``B``; None if a side has several seeds.
        corrected: the p-value after Holm's correction over the table; None if there is no p-value.
    """

    first: SeedGroup
    second: SeedGroup
    attack: str
    norm: str
    eps: float
    rank: str
    images: int
    a: Level
    b: Level
    interval: tuple[float, float] | None = None
    chance: float | None = None
    test: Test | None = None
    changes: Changes | None = None
    corrected: float | None = None

    @property
    def value(self) -> float | None:
        """``b`` minus ``a``, in [-1, 1]; None if an accuracy is missing."""
        if self.a.mean is None or self.b.mean is None:
            return None
        return self.b.mean - self.a.mean


def measure_name(attack: str, eps: float) -> str:
    """The name of a measurement for people, such as ``clean`` or ``pgd 8/255``."""
    return CLEAN if attack == CLEAN else f"{short_numbers(attack)} {eps_text(eps)}"


def differences_of(first: SeedGroup, second: SeedGroup) -> tuple[list[Difference], list[str]]:
    """Compare every measurement that both groups have.

    Args:
        first: group ``A``.
        second: group ``B``, measured on the same images.

    Returns:
        The differences, and one line for each measurement that cannot be compared.
    """
    found: list[Difference] = []
    notes: list[str] = []
    for key in dict.fromkeys(key for records in first.records for key in records):
        ours, theirs = ([records.get(key) for records in group.records] for group in (first, second))
        if all(record is None for record in theirs):
            continue
        problem = _problem([*ours, *theirs])
        if problem is None:
            found += [difference_of(first, second, *key, rank) for rank in _ranks([*ours, *theirs])]
        else:
            notes.append(problem)
    return found, notes


def _problem(records: Sequence[Record | None]) -> str | None:
    """Why measurements of the same name cannot be compared; None if they can."""
    known = [record for record in records if record is not None]
    one = known[0]
    name = measure_name(one.attack, one.eps)
    # The norm and the attack settings do not affect a clean figure.
    for other in known[1:] if one.attack != CLEAN else ():
        if other.norm != one.norm:
            return f"{name} is not compared: norm {one.norm} in A, {other.norm} in B"
        for setting, value in settings_of(one).items():
            # A failed measurement does not record all its settings.
            if other.status == one.status == OK and settings_of(other)[setting] != value:
                return f"{name} is not compared: {setting} {value} in A, {settings_of(other)[setting]} in B"
    return None


def difference_of(first: SeedGroup, second: SeedGroup, attack: str, eps: float, rank: str) -> Difference:
    """Compare one measurement of two groups.

    Args:
        first: group ``A``; at least one of its seeds has the measurement.
        second: group ``B``, measured on the same images.
        attack: canonical spec of the measurement.
        eps: its budget in units of the pixel range.
        rank: ``top1`` or ``top5``.
    """
    ours, theirs = ([records.get((attack, eps)) for records in group.records] for group in (first, second))
    one = next(record for record in ours if record is not None)
    a, b = level_of(ours, rank), level_of(theirs, rank)
    difference = Difference(first, second, one.attack, one.norm, one.eps, rank, one.n, a, b)
    return difference if None in (a.mean, b.mean) else _tested(difference)


def _ranks(records: Sequence[Record | None]) -> list[str]:
    """The measured ranks; top-5 is left out for five classes or fewer, because it is always right."""
    known = [record for record in records if record is not None]
    ranks = [rank for rank in _RANKS if any(getattr(record, rank) is not None for record in known)]
    return [rank for rank in ranks or _RANKS[:1] if rank == "top1" or known[0].classes > 5]


def level_of(records: Sequence[Record | None], rank: str) -> Level:
    """The accuracy of one side; missing if one seed lacks it, because all seeds must count.

    Args:
        records: one record for each seed; None if the seed was not measured.
        rank: ``top1`` or ``top5``.
    """
    rates = [None if record is None else getattr(record, rank) for record in records]
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates):
        failed = [record for record in records if record is not None and record.status != OK]
        return Level(None, instead=failed[0].status.code.figure if failed else "–")
    verdicts = [record.verdict for record in records if record is not None]
    states = [Trust.ok if verdict is None else verdict.state for verdict in verdicts]
    return Level(
        fmean(known),
        stdev(known) if len(known) > 1 else None,
        trust=max(states, key=list(Trust).index),
    )


def _tested(difference: Difference) -> Difference:
    ours, theirs = (
        group.hits(difference.attack, difference.eps, difference.rank)
        for group in (difference.first, difference.second)
    )
    if len(ours) == len(theirs) == 1:
        changes = Changes.between(ours[0], theirs[0])
        return replace(
            difference,
            interval=difference_interval(ours[0], theirs[0]),
            chance=changes.chances().of_difference,
            test=Test.mcnemar,
            changes=changes,
        )
    counts = [tuple(int(hits.sum()) for hits in side) for side in (ours, theirs)]
    spread = Spread(counts[0], counts[1], difference.images)
    return replace(
        difference,
        interval=spread.interval(),
        chance=spread.chances().of_difference,
        test=Test.student,
    )
