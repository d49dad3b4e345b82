"""Verdicts: what the trust checks say of a figure, and how a record writes it down.

A figure under attack is ``ok``, ``unchecked`` or doubted. Code decides on :class:`Trust` and :class:`Cause`;
the text in a record is read and written here alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

# What the checks need for a judgement. Below it, no test of counts could find anything.
LEAST_IMAGES, LEAST_RIGHT = 20, 10

_BETWEEN = "; "


class Trust(StrEnum):
    """The state of a figure: each of them goes before those above it."""

    ok = "ok"
    unchecked = "unchecked"
    doubted = "doubted"


class Cause(StrEnum):
    """Why the checks cannot judge a figure; a reason is one of these, or one and details after a colon."""

    no_figure = "there is no figure"
    clean_failed = "the clean measure failed"
    at_chance = "clean accuracy is not above chance"
    few_images = "too few images"
    few_right = "too few images are right when clean"
    no_gradients = "the model gives no gradients"
    too_coarse = "the model's answers are too coarse to check its gradients"


@dataclass(frozen=True)
class Verdict:
    """What the trust checks say of one figure.

    Attributes:
        doubts: reasons not to believe it, a sentence each.
        unchecked: reasons why the checks could not judge it in full; :func:`cause_of` gives the cause.
    """

    doubts: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    @classmethod
    def of(cls, doubts: Iterable[str | None] = (), unchecked: Iterable[str | None] = ()) -> Self:
        """The verdict that follows from some reasons: each counts once, None counts for nothing."""
        return cls(_reasons(doubts), _reasons(unchecked))

    @property
    def state(self) -> Trust:
        """Doubted with one doubt, whatever could not be checked."""
        if self.doubts:
            return Trust.doubted
        return Trust.unchecked if self.unchecked else Trust.ok


def as_text(verdict: Verdict) -> str:
    """A verdict as a record holds it: ``ok``, or all reasons with ``; `` between them, doubts first.

    >>> as_text(Verdict()), as_text(Verdict(unchecked=("too few images: 8",)))
    ('ok', 'unchecked: too few images: 8')
    """
    unchecked = [f"{Trust.unchecked}: {reason}" for reason in verdict.unchecked]
    return _BETWEEN.join([*verdict.doubts, *unchecked]) or Trust.ok.value


def read_verdict(text: str | None) -> Verdict | None:
    """The verdict of a record's text; None if there is none, so that no checks were asked for.

    >>> read_verdict("accuracy rises; unchecked: too few images: 8").state
    <Trust.doubted: 'doubted'>
    """
    if not text:
        return None
    if text == Trust.ok:
        return Verdict()
    mark = f"{Trust.unchecked}: "
    parts = text.split(_BETWEEN)
    return Verdict(
        tuple(part for part in parts if not part.startswith(mark)),
        tuple(part.removeprefix(mark) for part in parts if part.startswith(mark)),
    )


def cause_of(reason: str) -> str:
    """The part of a reason that stays the same if its counts change; one of :class:`Cause`.

    >>> cause_of("too few images: 8, and 20 are needed") == Cause.few_images
    True
    """
    return reason.partition(": ")[0]


def too_few(images: int, right: int) -> str | None:
    """Why a measure has too few images to be judged; None if it has enough.

    Args:
        images: measured.
        right: of them, right when clean.
    """
    if images < LEAST_IMAGES:
        return f"{Cause.few_images}: {images}, and {LEAST_IMAGES} are needed"
    if right < LEAST_RIGHT:
        return f"{Cause.few_right}: {right} of {images}, and {LEAST_RIGHT} are needed"
    return None


def _reasons(reasons: Iterable[str | None]) -> tuple[str, ...]:
    """Each once, with nothing in it that separates reasons."""
    return tuple(dict.fromkeys(reason.replace(";", ",") for reason in reasons if reason is not None))
