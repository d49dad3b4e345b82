"""Verdicts: what the trust checks say of a figure, as codes.

A figure under attack is ``ok``, ``unchecked`` or doubted. What decides is its list of reasons, each a
:class:`TrustCode` with its facts; their texts stand in :mod:`robustbench_tin.benchmarks.codes.trust_texts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Self

from robustbench_tin.benchmarks.codes.trust_texts import TEXTS, TrustCode
from robustbench_tin.messages import Message

# What the checks need for a judgement. Below it, no test of counts could find anything.
LEAST_IMAGES, LEAST_RIGHT = 20, 10


class Trust(StrEnum):
    """The state of a figure: each of them goes before those above it."""

    ok = "ok"
    unchecked = "unchecked"
    doubted = "doubted"


class Reason(Message):
    """Why a figure is doubted, or could not be checked.

    >>> str(Reason.of(TrustCode.few_images, images=8, needed=20))
    'too few images: 8, and 20 are needed'
    """

    code: TrustCode
    TEXTS: ClassVar = TEXTS

    @property
    def is_doubt(self) -> bool:
        """Whether it speaks against the figure, and not only for no check of it."""
        return not self.code.unchecked


@dataclass(frozen=True)
class Verdict:
    """What the trust checks say of one figure.

    Attributes:
        doubts: reasons not to believe it.
        unchecked: reasons why the checks could not judge it in full.
    """

    doubts: tuple[Reason, ...] = ()
    unchecked: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, reasons: Iterable[Reason | None] = ()) -> Self:
        """The verdict that follows from some reasons: each counts once, None counts for nothing."""
        found = dict.fromkeys(reason for reason in reasons if reason is not None)
        return cls(
            tuple(reason for reason in found if reason.is_doubt),
            tuple(reason for reason in found if not reason.is_doubt),
        )

    @property
    def state(self) -> Trust:
        """Doubted with one doubt, whatever could not be checked."""
        if self.doubts:
            return Trust.doubted
        return Trust.unchecked if self.unchecked else Trust.ok

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """All of them, doubts first, as a record holds them; none: ``ok``."""
        return (*self.doubts, *self.unchecked)

    def __str__(self) -> str:
        """For people.

        >>> print(Verdict(), "|", Verdict.of([Reason.of(TrustCode.few_images, images=8, needed=20)]))
        ok | unchecked: too few images: 8, and 20 are needed
        """
        said = [str(reason) if reason.is_doubt else f"{Trust.unchecked}: {reason}" for reason in self.reasons]
        return "; ".join(said) or Trust.ok.value


def too_few(images: int, right: int) -> Reason | None:
    """Why a measure has too few images to be judged; None if it has enough.

    Args:
        images: measured.
        right: of them, right when clean.
    """
    if images < LEAST_IMAGES:
        return Reason.of(TrustCode.few_images, images=images, needed=LEAST_IMAGES)
    if right < LEAST_RIGHT:
        return Reason.of(TrustCode.few_right, right=right, images=images, needed=LEAST_RIGHT)
    return None
