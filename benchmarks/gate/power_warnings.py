"""Can these images and seeds see the tolerance? How many would it take? What does a baseline not guard?"""

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

# How many images change their outcome is not known before a run; between a light touch and another network.
_CHANGED = (0.02, 0.1, 0.3)


def blind_spots(results: Sequence[CheckResult], level: float) -> list[str]:
    """A warning for measures that would not see a drop of their tolerance in four of five cases.

    Args:
        results: all of a check.
        level: of the check.
    """
    tested = [result for result in results if result.chance is not None and result.tolerance > 0]
    # Holm holds the smallest of the p-values against this.
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
    """A finding if a measure would not see a drop of its tolerance in four of five cases.

    Args:
        results: all of a check.
        level: of the check.
    """
    said = blind_spots(results, level)
    blind = [result for result in results if result.chance is not None and result.tolerance == 0]
    if blind:
        said.append(
            f"no number of images sees a drop of 0 points ({len(blind)} measures): allow a --max-drop above 0"
        )
    text = f"the tolerance cannot be seen: {'; '.join(said)}"
    return (Finding(FindingCode.low_power, text),) if said else ()


def _power(spread: Spread, drop: float, level: float) -> float:
    if spread.assumed is not None:
        return power_of_error(drop, spread.assumed_error, level / spread.tests)
    return power_of_seeds(len(spread.before), len(spread.now), drop, spread.deviation, level)


def weak_spots(baseline: Baseline) -> list[str]:
    """A warning for figures of a baseline that guard nothing, whatever is compared with them."""
    said = []
    for entry in baseline.entries:
        if any(measure.above_chance is False for measure in entry.measures):
            said.append(
                f"{entry.label} has not learned anything in the baseline: its figures mean nothing, and"
                " nor does a drop from them"
            )
            continue
        doubted = [measure for measure in entry.measures if measure.doubts]
        if doubted:
            said.append(
                f"{entry.label}: the baseline's own figures are not to be believed ({_labels(doubted)}:"
                f" {doubted[0].doubts[0]}): see to that and make it again"
            )
        said += _unchecked(entry)
    return said


def _unchecked(entry: Entry) -> list[str]:
    """Why the figures of a baseline could not be checked, a line a reason, or that nobody asked for it."""
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
            f"{entry.label}: whether to believe the baseline's figures was not checked"
            f" ({_labels(blank)}), so that what masks gradients in both goes unseen"
        )
    return said


def power_table(drop: float, measures: int, level: float) -> Table:
    """Images that a check of the same weights needs to see a drop.

    Args:
        drop: a fraction above 0.
        measures: in the table that is checked.
        level: of the check.
    """
    rows = []
    for changed in sorted({drop, *(share for share in _CHANGED if share > drop)}):
        needed = images_needed(drop, changed, level / measures)
        only = " (each of them lost)" if changed == drop else ""
        rows.append((f"{100 * changed:g}{only}", "more than 10 million" if needed is None else f"{needed:,}"))
    return Table(
        title=f"Images that see a drop of {points(drop)} in {POWER:.0%} of checks, {measures} measures",
        columns=("images that change, %", "images needed"),
        rows=tuple(rows),
        label_columns=1,
        notes=("Same weights, changed pipeline: McNemar's exact test at Holm's strictest step.",),
    )


def seeds_table(drop: float, baseline: Baseline, level: float) -> Table:
    """Seeds that a check of one re-training needs to see a drop, and what the baseline's see."""
    measures = sum(len(entry.measures) for entry in baseline.entries)
    rows = []
    for entry in baseline.entries:
        for measure in entry.measures:
            rows.append(
                (entry.label, measure.key.label, *_seen(drop, baseline.images, measure, level / measures))
            )
    return Table(
        title=f"Seeds that see a re-training lose {points(drop)} in {POWER:.0%} of checks",
        columns=("model", "measure", "seeds", "deviation", "visible", "seeds needed"),
        rows=tuple(rows),
        label_columns=2,
        notes=(
            "deviation: of one training's accuracy, in points. visible: the drop in points that the"
            " baseline's seeds see. More images do not help against the seed.",
        ),
    )


def _seen(drop: float, images: int, measure: Measure, level: float) -> tuple[str, str, str, str]:
    seeds = len(measure.right)
    spread = Spread(tuple(measure.right), (), images)
    if not spread.known:
        return (str(seeds), "unknown", "none", "two or more, to know")
    visible = visible_drop(seeds, 1, spread.deviation, level)
    needed = seeds_needed(drop, spread.deviation, level)
    return (
        str(seeds),
        f"{100 * spread.deviation:.2g}",
        "none" if visible is None else f"{100 * visible:.2g}",
        "none suffices" if needed is None else str(needed),
    )


def _labels(measures: Sequence[Measure]) -> str:
    shown = ", ".join(measure.key.label for measure in measures[:4])
    return shown if len(measures) <= 4 else f"{shown} and {len(measures) - 4} more"


def _too_few_images(images: int, tolerance: float, changed: Sequence[float], level: float) -> str:
    seen = min(power_of_images(images, tolerance, share, level) for share in changed)
    needed = images_needed(tolerance, max(changed), level)
    enough = "more than 10 million" if needed is None else f"about {needed:,}"
    return (
        f"{images:,} images see a drop of {points(tolerance)} in as few as {100 * seen:.0f} % of cases"
        f" ({len(changed)} measures): measure {enough}, or allow a larger --max-drop"
    )


def _too_few_seeds(seeds: int, tolerance: float, spreads: Sequence[Spread], level: float) -> str:
    if spreads[0].assumed is not None:
        return _one_seed(tolerance, spreads, level)
    widest = max(spreads, key=lambda spread: spread.deviation)
    visible = visible_drop(seeds, len(widest.now), widest.deviation, level)
    seen = "no drop is" if visible is None else f"only a drop of {100 * visible:.2g} points or more is"
    needed = seeds_needed(tolerance, widest.deviation, level)
    enough = "no number of seeds suffices" if needed is None else f"{needed} seeds would do"
    return (
        f"{seeds} seeds of the baseline do not see a re-training lose"
        f" {points(tolerance)} ({len(spreads)} measures): {seen} seen in four of five cases; {enough}"
    )


def _one_seed(tolerance: float, spreads: Sequence[Spread], level: float) -> str:
    widest = max(spreads, key=lambda spread: spread.assumed_error)
    visible = drop_seen(widest.assumed_error, level / widest.tests)
    return (
        f"the baseline's one seed does not see a re-training lose {points(tolerance)}"
        f" ({len(spreads)} measures): only a drop of {100 * visible:.2g} points or more is seen in four of"
        f" five cases, if seeds deviate by {points(widest.assumed or 0.0)}; make the baseline of more seeds"
    )
