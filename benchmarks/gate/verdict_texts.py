"""Why a measure got its verdict, in words."""

from __future__ import annotations

from robustbench_tin.benchmarks.gate.result import CheckResult
from robustbench_tin.benchmarks.statistics.spread import Spread


def why_worse(result: CheckResult, drop: float, chance: float, level: float) -> str:
    """Why a measure is worse, a sentence."""
    lost = f"a drop of {points(drop)}, more than the {points(result.tolerance)} that it may lose, "
    if result.changes is not None:
        return (
            f"{lost}and beyond chance (p = {chance:.2g}): {result.changes.lost} images lost,"
            f" {result.changes.won} won"
        )
    spread = result.spread
    assert spread is not None
    if spread.assumed is not None:
        return (
            f"{lost}and beyond what other seeds explain (p = {chance:.2g}) if they deviate by"
            f" {points(spread.assumed)}, which is assumed because the baseline has one seed"
        )
    # What Holm's correction made of the level for this measure.
    share = spread.chances().of_drop / chance if chance > 0 else 1.0
    return (
        f"{lost}and beyond what other seeds explain (p = {chance:.2g}): after {len(spread.before)} seeds at"
        f" {percent(sum(spread.before) / len(spread.before) / spread.images)}, one training deviating by"
        f" {points(spread.deviation)}, {percent(spread.lowest(level * share))} or more was to be expected"
    )


def why_unknown(result: CheckResult, spread: Spread, drop: float) -> str:
    """Why a drop beside a baseline of one seed cannot be judged, a sentence."""
    return (
        f"a drop of {points(drop)}, more than the {points(result.tolerance)} that it may lose; but another"
        f" seed may explain it (assumed deviation: {points(spread.assumed or 0.0)}), and how far re-trainings"
        " lie apart cannot be known from one seed: make the baseline of more seeds, or allow a larger"
        " --max-drop"
    )


def points(value: float) -> str:
    """A difference of accuracies for people: ``1 point``, ``0.35 points``."""
    text = f"{100 * value:.3g}"
    return f"{text} point{'' if text == '1' else 's'}"


def percent(value: float) -> str:
    """An accuracy for people: ``42.3 %``."""
    return f"{100 * value:.3g} %"
