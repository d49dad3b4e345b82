"""Is a figure to be believed as far as the baseline's was? What the trust checks say of both decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.gate.baseline import Measure
from robustbench_tin.benchmarks.gate.candidate import CandidateMeasurement
from robustbench_tin.benchmarks.runs.records import CLEAN

# The images are the baseline's, and its own test judges how many of them are right: no way round a check.
_TOO_FEW = (TrustCode.few_images, TrustCode.few_right)
# Another finding (untrained.py) tells, and fails the check unless that is allowed.
_KNOWN_OTHERWISE = (*_TOO_FEW, TrustCode.at_chance)


@dataclass(frozen=True)
class Belief:
    """What the trust checks say of figures beside their baseline's.

    Attributes:
        reasons: why the measure is suspicious, a sentence each; empty if it is not.
        doubts: what speaks against the figures and not against the baseline's, or could not be checked of
            them alone: those of the reasons that are the checks' own.
        unchecked: why the figures could not be checked, if that is no reason.
    """

    reasons: tuple[str, ...] = ()
    doubts: tuple[Reason, ...] = ()
    unchecked: tuple[Reason, ...] = ()


def belief(
    figures: Sequence[CandidateMeasurement], known: Measure | None, *, asked: bool, rises: bool
) -> Belief:
    """Hold what speaks against figures against what spoke against the baseline's.

    A doubt that the baseline did not have makes a figure suspicious. So does one that could not be checked
    for a cause that the baseline did not have; else a model without gradients would get round the checks.
    If the baseline's own figure was doubted, only a rise is held to that.

    Args:
        figures: of the trainings that are judged.
        known: the baseline's measure; None if it has none.
        asked: whether a baseline or a floor asks anything of them.
        rises: whether they are better than the baseline's, beyond chance.
    """
    unchecked = _once(reason for figure in figures for reason in figure.unchecked)
    if not asked:
        return Belief(unchecked=unchecked)
    doubts = _new_doubts(_once(doubt for figure in figures for doubt in figure.doubts), known, rises=rises)
    hidden = _newly_unchecked(unchecked, known, rises=rises)
    # Of a clean figure only what speaks against it is kept.
    blank = known is not None and not known.checked and not known.unchecked and known.attack != CLEAN
    unknown = " (the baseline's was not checked)" if blank else ""
    return Belief(
        (
            *(f"not to be believed{unknown}: {doubt}" for doubt in doubts),
            *(f"unchecked for a cause that the baseline does not have: {reason}" for reason in hidden),
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
    """Those that are held against a figure; none if nobody checked the baseline's."""
    if known is None or not (known.checked or known.unchecked) or (known.doubts and not rises):
        return ()
    # Earlier versions took a want of gradients for a doubt.
    familiar = {reason.code for reason in (*known.unchecked, *known.doubts)}
    granted = familiar if rises else {*familiar, *_KNOWN_OTHERWISE}
    return tuple(reason for reason in reasons if reason.code not in granted)


def _once(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    return tuple(dict.fromkeys(reasons))
