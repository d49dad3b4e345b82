"""A comparison as a table: one row for each pair of groups and measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.benchmarks.comparison.difference import Difference, Level, Test, measure_name
from robustbench_tin.benchmarks.comparison.selection import SeedGroup
from robustbench_tin.benchmarks.reporting.figure import DOUBTED, MARKS, UNCHECKED, Figure, Standing
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.benchmarks.runs.same_measurement import MeasuredImages
from robustbench_tin.benchmarks.statistics.chances import SIGNIFICANT
from robustbench_tin.text import counted


@dataclass(frozen=True)
class _Part:
    """One part of a group's name.

    Attributes:
        heading: heading of its column.
        of: returns the part of a group.
    """

    heading: str
    of: Callable[[SeedGroup], str]


def _seeds(group: SeedGroup) -> str:
    return ", ".join(map(str, group.seeds))


_PARTS = (
    _Part("model", lambda group: group.model),
    _Part("defense", lambda group: group.defense),
    _Part("seed", _seeds),
    _Part("run", lambda group: str(group.run.path)),
)


def comparison_table(
    differences: Sequence[Difference], notes: Sequence[str], images: MeasuredImages
) -> Table:
    """The table of a comparison; its title holds the parts of names that all rows share.

    Args:
        differences: the differences, one for each row; at least one.
        notes: lines below the table.
        images: the images that all cells were measured on.
    """
    names = [column for part in _PARTS for column in _columns(part, differences)]
    ranks = list(dict.fromkeys(each.rank for each in differences))
    labels = [*(heading for heading, _ in names), "attack", *(["top"] if len(ranks) > 1 else [])]
    rows = [
        (
            *(text(each) for _, text in names),
            measure_name(each.attack, each.eps),
            *([each.rank.removeprefix("top")] if len(ranks) > 1 else []),
            *_figures(each),
        )
        for each in differences
    ]
    return Table(
        title=_title(differences, images, ranks),
        columns=(*labels, "A", "B", "B−A", "p"),
        rows=tuple(rows),
        label_columns=len(labels),
        notes=(*_tests(differences), *_reasons(differences), *notes),
        explained=True,
        in_full="--csv",
    )


def _columns(part: _Part, differences: Sequence[Difference]) -> list[tuple[str, Callable[[Difference], str]]]:
    """The columns of a part: none if all rows share it, one if both sides of each pair share it, else two."""
    ours, theirs = ([part.of(getattr(each, side)) for each in differences] for side in ("first", "second"))
    if ours == theirs:
        several = len(set(ours)) > 1
        return [(part.heading, lambda each: part.of(each.first))] if several else []
    columns: list[tuple[str, Callable[[Difference], str]]] = []
    if len(set(ours)) > 1:
        columns.append((f"{part.heading} A", lambda each: part.of(each.first)))
    if len(set(theirs)) > 1:
        columns.append((f"{part.heading} B", lambda each: part.of(each.second)))
    return columns


def _title(differences: Sequence[Difference], images: MeasuredImages, ranks: Sequence[str]) -> str:
    rank = "" if len(ranks) > 1 else f"{ranks[0].replace('top', 'top-')} "
    norms = "".join(dict.fromkeys(f", {each.norm}" for each in differences if each.attack != CLEAN))
    data = f"{images.data}, {counted(images.classes, 'class', 'classes')}, {counted(images.images, 'image')}"
    ours, theirs = ([getattr(each, side) for each in differences] for side in ("first", "second"))
    common = _shared(_PARTS, [*ours, *theirs])
    others = [part for part in _PARTS if part.heading not in common]
    sides = [
        f"{side}: {', '.join(texts.values())}"
        for side, texts in (("A", _shared(others, ours)), ("B", _shared(others, theirs)))
        if texts
    ]
    return f"Accuracy {rank}in %{norms}: {'; '.join([', '.join([data, *common.values()]), *sides])}"


def _shared(parts: Sequence[_Part], groups: Sequence[SeedGroup]) -> dict[str, str]:
    """The parts of names that all groups share, by heading, such as ``mobilenet`` and ``seeds 0, 1``."""
    found = {part.heading: {part.of(group) for group in groups} for part in parts}
    return {heading: _in_words(heading, texts.pop()) for heading, texts in found.items() if len(texts) == 1}


def _in_words(heading: str, text: str) -> str:
    if heading == "seed":
        return f"seed{'s' if ',' in text else ''} {text}"
    return f"run {text}" if heading == "run" else text


def _figures(each: Difference) -> tuple[Figure, ...]:
    a, b = _standings(each)
    if each.value is None or each.interval is None or each.corrected is None:
        return _level(each.a, a), _level(each.b, b), Figure("–"), Figure("–")
    low, high = each.interval
    value = 100 * each.value
    return (
        _level(each.a, a),
        _level(each.b, b),
        Figure(f"{value:+.1f}", value=value, interval=(100 * low, 100 * high)),
        Figure(f"{p_text(each.corrected)}{'*' if each.corrected <= SIGNIFICANT else ''}"),
    )


def _level(level: Level, standing: Standing) -> Figure:
    if level.mean is None:
        return Figure(level.instead)
    return Figure(
        f"{100 * level.mean:.1f}",
        value=100 * level.mean,
        mark=MARKS[level.trust],
        deviation=None if level.deviation is None else 100 * level.deviation,
        standing=standing,
    )


def _standings(each: Difference) -> tuple[Standing, Standing]:
    """The marks of both sides: a significantly better, undoubted side is best; otherwise both tie."""
    if each.value is None or each.corrected is None:
        return Standing.none, Standing.none
    if each.corrected > SIGNIFICANT:
        return Standing.tie, Standing.tie
    better = each.b if each.value > 0 else each.a
    best = Standing.none if better.trust is Trust.doubted else Standing.best
    return (Standing.none, best) if each.value > 0 else (best, Standing.none)


def _reasons(differences: Sequence[Difference]) -> list[str]:
    """A note on how to see the reasons for the marks of the trust checks, if there are marks."""
    marked = any(MARKS[level.trust] for each in differences for level in (each.a, each.b))
    return [f"Reasons for {DOUBTED} and {UNCHECKED}: robust-tin show RUN."] if marked else []


def p_text(chance: float) -> str:
    """A p-value with two digits.

    >>> p_text(0.0123), p_text(1.0), p_text(3e-9)
    ('0.012', '1', '<0.0001')
    """
    return "<0.0001" if chance < 1e-4 else f"{chance:.2g}"


def _tests(differences: Sequence[Difference]) -> list[str]:
    """Notes on the tests behind the p-values and the intervals."""
    made = {each.test for each in differences}
    count = sum(each.chance is not None for each in differences)
    lines = []
    if Test.mcnemar in made:
        lines.append(
            "One seed on each side: McNemar's exact test on the same images, Newcombe's interval. They hold"
            " for these trainings only, not for other seeds."
        )
    if Test.student in made:
        lines.append("Several seeds: test and interval are Student's t over the seeds.")
    if count:
        lines.append(
            f"p: two-sided, with Holm's correction over {counted(count, 'test')}. *: p ≤ {SIGNIFICANT:g}."
            " Intervals: 95 % each, not corrected."
        )
    return lines
