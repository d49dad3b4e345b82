"""Decide whether a figure is suspicious: compare its trust verdict with the verdict in the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.gate.baseline import Measure
from robustbench_tin.benchmarks.gate.candidate import CandidateMeasurement
from robustbench_tin.benchmarks.runs.records import CLEAN

# Both sides have the same images, and the significance test covers the number of right ones.
_TOO_FEW = (TrustCode.few_images, TrustCode.few_right)
# untrained.py reports accuracy at chance, and fails the check unless that is allowed.
_KNOWN_OTHERWISE = (*_TOO_FEW, TrustCode.at_chance)


@dataclass(frozen=True)
class Belief:
    """The trust verdict of figures, compared with the baseline.

    Attributes:
        reasons: why the measurement is suspicious, one sentence each; empty if it is not suspicious.
        doubts: the trust reasons behind ``reasons``: doubts that the baseline does not have, and reasons why
            only the candidate could not be checked.
        unchecked: reasons why the figures could not be checked, if they do not make the figures suspicious.
    """

    reasons: tuple[str, ...] = ()
    doubts: tuple[Reason, ...] = ()
    unchecked: tuple[Reason, ...] = ()


def belief(
    figures: Sequence[CandidateMeasurement], known: Measure | None, *, asked: bool, rises: bool
) -> Belief:
    """Compare the trust reasons of figures with the trust reasons of the baseline.

    A doubt that the baseline does not have makes a figure suspicious. A failed check also makes it suspicious
    if the baseline does not have the cause; otherwise a model without gradients would evade the checks. If
    the baseline's own figure is doubted, these rules apply only to a rise.

    Args:
        figures: the figures of the judged trainings.
        known: the baseline's measurement; None if it has none.
        asked: whether a baseline or a floor applies to the figures.
        rises: whether the figures are significantly better than the baseline's.
    """
    unchecked = _once(reason for figure in figures for reason in figure.unchecked)
    if not asked:
        return Belief(unchecked=unchecked)
    doubts = _new_doubts(_once(doubt for figure in figures for doubt in figure.doubts), known, rises=rises)
    hidden = _newly_unchecked(unchecked, known, rises=rises)
    # For a clean figure a baseline stores only doubts.
    blank = known is not None and not known.checked and not known.unchecked and known.attack != CLEAN
    unknown = " (the baseline's was not checked)" if blank else ""
    return Belief(
        (
            *(f"unreliable{unknown}: {doubt}" for doubt in doubts),
            *(f"unchecked for a reason that the baseline does not have: {reason}" for reason in hidden),
        ),
        (*doubts, *hidden),
        tuple(reason for reason in unchecked if reason not in hidden),
    )


def _new_doubts(doubts: tuple[Reason, ...], known: Measure | None, *, rises: bool) -> tuple[Reason, ...]:
    if known is None or not known.doubts:
        return doubts
    familiar = {doubt.code for doubt in known.doubts}
    return tuple(doubt for doubt in doubts if doubt.code not in familiar) if rises else ()


def _newly_unchecked(
    reasons: tuple[Reason, ...], known: Measure | None, *, rises: bool
) -> tuple[Reason, ...]:
    """The unchecked reasons that make a figure suspicious; none if the baseline was not checked."""
    if known is None or not (known.checked or known.unchecked) or (known.doubts and not rises):
        return ()
    # Earlier versions counted missing gradients as a doubt.
    familiar = {reason.code for reason in (*known.unchecked, *known.doubts)}
    granted = familiar if rises else {*familiar, *_KNOWN_OTHERWISE}
    return tuple(reason for reason in reasons if reason.code not in granted)


def _once(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    return tuple(dict.fromkeys(reasons))
