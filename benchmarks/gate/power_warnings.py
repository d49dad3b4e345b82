"""Warn if too few images or seeds detect the tolerance, or if figures of a baseline are unreliable."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.gate.baseline import Baseline, Entry, Measure
from robustbench_tin.benchmarks.gate.power import (
    POWER,
    drop_seen,
    images_needed,
    power_of_error,
    power_of_images,
    power_of_seeds,
    seeds_needed,
    visible_drop,
)
from robustbench_tin.benchmarks.gate.result import CheckResult, Finding, FindingCode
from robustbench_tin.benchmarks.gate.verdict_texts import points
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN
from robustbench_tin.benchmarks.statistics.spread import Spread
from robustbench_tin.text import counted

# Assumed fractions of images whose result changes: from a small change of the pipeline to another network.
_CHANGED = (0.02, 0.1, 0.3)


def blind_spots(results: Sequence[CheckResult], level: float) -> list[str]:
    """Warnings for measurements that detect a drop of their tolerance in fewer than four of five cases.

    Args:
        results: all results of a check.
        level: level of the check, in (0, 1).
    """
    tested = [result for result in results if result.chance is not None and result.tolerance > 0]
    # Holm's method compares the smallest p-value with this level.
    level /= max(1, sum(result.chance is not None for result in results))
    images: dict[tuple[int, float], list[float]] = {}
    seeds: dict[tuple[int, float], list[Spread]] = {}
    for result in tested:
        if result.changes is not None:
            changed = max(result.changes.share, result.tolerance)
            if power_of_images(result.changes.images, result.tolerance, changed, level) < POWER:
                images.setdefault((result.changes.images, result.tolerance), []).append(changed)
        elif result.spread is not None:
            spread = result.spread
            if _power(spread, result.tolerance, level) < POWER:
                seeds.setdefault((len(spread.before), result.tolerance), []).append(spread)
    return [
        *(_too_few_images(*key, changed, level) for key, changed in images.items()),
        *(_too_few_seeds(*key, spreads, level) for key, spreads in seeds.items()),
    ]


def low_power(results: Sequence[CheckResult], level: float) -> tuple[Finding, ...]:
    """A finding if a measurement detects a drop of its tolerance in fewer than four of five cases.

    Args:
        results: all results of a check.
        level: level of the check, in (0, 1).
    """
    said = blind_spots(results, level)
    blind = [result for result in results if result.chance is not None and result.tolerance == 0]
    if blind:
        said.append(
            f"no number of images can detect a drop of 0 points ({counted(len(blind), 'measurement')}): allow"
            " a --max-drop above 0"
        )
    text = f"the check cannot detect a drop as large as the tolerance: {'; '.join(said)}"
    return (Finding(FindingCode.low_power, text),) if said else ()


def _power(spread: Spread, drop: float, level: float) -> float:
    if spread.assumed is not None:
        return power_of_error(drop, spread.assumed_error, level / spread.tests)
    return power_of_seeds(len(spread.before), len(spread.now), drop, spread.deviation, level)


def weak_spots(baseline: Baseline) -> list[str]:
    """Warnings for figures of a baseline that are unreliable or unchecked.

    Args:
        baseline: the baseline.
    """
    said = []
    for entry in baseline.entries:
        if any(measure.above_chance is False for measure in entry.measures):
            said.append(
                f"{entry.label}: the clean accuracy in the baseline is not above chance, so its figures and"
                " drops from them mean nothing"
            )
            continue
        doubted = [measure for measure in entry.measures if measure.doubts]
        if doubted:
            said.append(
                f"{entry.label}: the baseline's own figures are unreliable ({_labels(doubted)}:"
                f" {doubted[0].doubts[0]}): solve this and make the baseline again"
            )
        said += _unchecked(entry)
    return said


def _unchecked(entry: Entry) -> list[str]:
    """Warnings for unchecked figures of a baseline, one for each reason."""
    measures = [measure for measure in entry.measures if measure.attack not in (CLEAN, CERTIFIED)]
    by_reason: dict[Reason, list[Measure]] = {}
    for measure in measures:
        for reason in measure.unchecked:
            by_reason.setdefault(reason, []).append(measure)
    said = [
        f"{entry.label}: the baseline's own figures are unchecked ({_labels(found)}: {reason})"
        for reason, found in by_reason.items()
    ]
    blank = [measure for measure in measures if not measure.checked and not measure.unchecked]
    if blank:
        said.append(
            f"{entry.label}: the baseline's figures have no trust checks ({_labels(blank)}), so masked"
            " gradients on both sides stay unnoticed"
        )
    return said


def power_table(drop: float, measures: int, level: float) -> Table:
    """A table of the number of images that a check of the same weights needs to detect a drop.

    Args:
        drop: the drop of accuracy, a fraction above 0.
        measures: number of measurements in the check, 1 or more.
        level: level of the check, in (0, 1).
    """
    rows = []
    for changed in sorted({drop, *(share for share in _CHANGED if share > drop)}):
        needed = images_needed(drop, changed, level / measures)
        only = " (each of them lost)" if changed == drop else ""
        rows.append((f"{100 * changed:g}{only}", "more than 10 million" if needed is None else f"{needed:,}"))
    return Table(
        title=(
            f"Images needed to detect a drop of {points(drop)} in {POWER:.0%} of checks,"
            f" {counted(measures, 'measurement')}"
        ),
        columns=("images that change, %", "images needed"),
        rows=tuple(rows),
        label_columns=1,
        notes=("Same weights: McNemar's exact test at Holm's strictest step.",),
    )


def seeds_table(drop: float, baseline: Baseline, level: float) -> Table:
    """A table of the seeds that a check of one re-training needs, and the drop that the baseline can detect.

    Args:
        drop: the drop of accuracy, a fraction above 0.
        baseline: the baseline.
        level: level of the check, in (0, 1).
    """
    measures = sum(len(entry.measures) for entry in baseline.entries)
    rows = []
    for entry in baseline.entries:
        for measure in entry.measures:
            rows.append(
                (entry.label, measure.key.label, *_seen(drop, baseline.images, measure, level / measures))
            )
    return Table(
        title=f"Seeds needed to detect a re-training that loses {points(drop)}, in {POWER:.0%} of checks",
        columns=("model", "measurement", "seeds", "deviation", "visible", "seeds needed"),
        rows=tuple(rows),
        label_columns=2,
        notes=(
            "deviation: standard deviation of one training's accuracy, in points. visible: smallest drop in"
            " points that the baseline's seeds detect. More images do not reduce the spread between seeds.",
        ),
    )


def _seen(drop: float, images: int, measure: Measure, level: float) -> tuple[str, str, str, str]:
    seeds = len(measure.right)
    spread = Spread(tuple(measure.right), (), images)
    if not spread.known:
        return (str(seeds), "unknown", "none", "at least two")
    visible = visible_drop(seeds, 1, spread.deviation, level)
    needed = seeds_needed(drop, spread.deviation, level)
    return (
        str(seeds),
        f"{100 * spread.deviation:.2g}",
        "none" if visible is None else f"{100 * visible:.2g}",
        "no number" if needed is None else str(needed),
    )


def _labels(measures: Sequence[Measure]) -> str:
    shown = ", ".join(measure.key.label for measure in measures[:4])
    return shown if len(measures) <= 4 else f"{shown} and {len(measures) - 4} more"


def _too_few_images(images: int, tolerance: float, changed: Sequence[float], level: float) -> str:
    seen = min(power_of_images(images, tolerance, share, level) for share in changed)
    needed = images_needed(tolerance, max(changed), level)
    enough = "more than 10 million" if needed is None else f"about {needed:,}"
    return (
        f"{images:,} images detect a drop of {points(tolerance)} in as few as {100 * seen:.0f} % of cases"
        f" ({counted(len(changed), 'measurement')}): measure {enough}, or allow a larger --max-drop"
    )


def _too_few_seeds(seeds: int, tolerance: float, spreads: Sequence[Spread], level: float) -> str:
    if spreads[0].assumed is not None:
        return _one_seed(tolerance, spreads, level)
    widest = max(spreads, key=lambda spread: spread.deviation)
    visible = visible_drop(seeds, len(widest.now), widest.deviation, level)
    seen = "no drop is" if visible is None else f"only a drop of {100 * visible:.2g} points or more is"
    needed = seeds_needed(tolerance, widest.deviation, level)
    enough = "no number of seeds is enough" if needed is None else f"{needed} seeds are enough"
    return (
        f"the baseline's {seeds} seeds cannot detect a re-training that loses {points(tolerance)}"
        f" ({counted(len(spreads), 'measurement')}): {seen} detected in four of five cases; {enough}"
    )


def _one_seed(tolerance: float, spreads: Sequence[Spread], level: float) -> str:
    widest = max(spreads, key=lambda spread: spread.assumed_error)
    visible = drop_seen(widest.assumed_error, level / widest.tests)
    return (
        f"the baseline's one seed cannot detect a re-training that loses {points(tolerance)}"
        f" ({counted(len(spreads), 'measurement')}): only a drop of {100 * visible:.2g} points or more is"
        f" detected in four of five cases, if seeds deviate by {points(widest.assumed or 0.0)}; make the"
        " baseline of more seeds"
    )
