"""Sentences that explain the verdict on a measurement."""

from __future__ import annotations

from robustbench_tin.benchmarks.gate.result import CheckResult
from robustbench_tin.benchmarks.statistics.spread import Spread


def why_worse(result: CheckResult, drop: float, chance: float, level: float) -> str:
    """A sentence on why a measurement is worse.

    Args:
        result: the result of the measurement, with its changes or its spread.
        drop: the drop of accuracy, a fraction.
        chance: the corrected p-value of the drop.
        level: level of the check, in (0, 1).
    """
    lost = f"a drop of {points(drop)}, more than the tolerance of {points(result.tolerance)}, "
    if result.changes is not None:
        return (
            f"{lost}and beyond chance (p = {chance:.2g}): {result.changes.lost} images lost,"
            f" {result.changes.won} won"
        )
    spread = result.spread
    assert spread is not None
    if spread.assumed is not None:
        return (
            f"{lost}and more than other seeds explain (p = {chance:.2g}) if they deviate by"
            f" {points(spread.assumed)}, which is assumed because the baseline has one seed"
        )
    # Holm's correction multiplies the level of this measurement by this factor.
    share = spread.chances().of_drop / chance if chance > 0 else 1.0
    return (
        f"{lost}and more than other seeds explain (p = {chance:.2g}): {len(spread.before)} seeds have a mean"
        f" of {percent(sum(spread.before) / len(spread.before) / spread.images)} and a standard deviation of"
        f" {points(spread.deviation)}, so at least {percent(spread.lowest(level * share))} was expected"
    )


def why_unknown(result: CheckResult, spread: Spread, drop: float) -> str:
    """A sentence on why a drop cannot be judged if the baseline has one seed.

    Args:
        result: the result of the measurement.
        spread: its spread, with an assumed standard deviation.
        drop: the drop of accuracy, a fraction.
    """
    return (
        f"a drop of {points(drop)}, more than the tolerance of {points(result.tolerance)}; but another seed"
        f" may explain it (assumed standard deviation: {points(spread.assumed or 0.0)}), and one seed does"
        " not show the spread between re-trainings: make the baseline of more seeds, or allow a larger"
        " --max-drop"
    )


def points(value: float) -> str:
    """A difference of accuracies, a fraction, for people: ``1 point`` or ``0.35 points``."""
    text = f"{100 * value:.3g}"
    return f"{text} point{'' if text == '1' else 's'}"


def percent(value: float) -> str:
    """An accuracy, a fraction, for people: ``42.3 %``."""
    return f"{100 * value:.3g} %"
