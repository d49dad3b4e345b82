"""Verdicts: the result of the trust checks for one figure, as codes.

A figure under attack is ``ok``, ``unchecked`` or ``doubted``. Its list of reasons decides; each reason is a
:class:`TrustCode` with facts. The texts are in :mod:`robustbench_tin.benchmarks.codes.trust_texts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Self

from robustbench_tin.benchmarks.codes.former_trust_texts import FORMER_TEXTS
from robustbench_tin.benchmarks.codes.trust_texts import TEXTS, TrustCode
from robustbench_tin.messages import Message

# The trust checks need this many images and right images. With fewer, no test on counts can find anything.
LEAST_IMAGES, LEAST_RIGHT = 20, 10


class Trust(StrEnum):
    """The state of a figure; a later state takes precedence over an earlier one."""

    ok = "ok"
    unchecked = "unchecked"
    doubted = "doubted"


class Reason(Message):
    """A reason why a figure is doubted or could not be checked.

    >>> str(Reason.of(TrustCode.few_images, images=8, needed=20))
    'too few images: 8, and 20 are needed'
    """

    code: TrustCode
    TEXTS: ClassVar = TEXTS
    FORMER_TEXTS: ClassVar = FORMER_TEXTS

    @property
    def is_doubt(self) -> bool:
        """True if it is evidence against the figure; False if it only says that a check was impossible."""
        return not self.code.unchecked


@dataclass(frozen=True)
class Verdict:
    """The result of the trust checks for one figure.

    Attributes:
        doubts: reasons why the figure is unreliable.
        unchecked: reasons why the checks could not judge the figure completely.
    """

    doubts: tuple[Reason, ...] = ()
    unchecked: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, reasons: Iterable[Reason | None] = ()) -> Self:
        """Make the verdict from reasons; duplicates count once, and None is ignored."""
        found = dict.fromkeys(reason for reason in reasons if reason is not None)
        return cls(
            tuple(reason for reason in found if reason.is_doubt),
            tuple(reason for reason in found if not reason.is_doubt),
        )

    @property
    def state(self) -> Trust:
        """``doubted`` if there is a doubt; else ``unchecked`` if a check was impossible; else ``ok``."""
        if self.doubts:
            return Trust.doubted
        return Trust.unchecked if self.unchecked else Trust.ok

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """All reasons, doubts first, as a record holds them; empty if the figure is ``ok``."""
        return (*self.doubts, *self.unchecked)

    def __str__(self) -> str:
        """The verdict as a text for people.

        >>> print(Verdict(), "|", Verdict.of([Reason.of(TrustCode.few_images, images=8, needed=20)]))
        ok | unchecked: too few images: 8, and 20 are needed
        """
        said = [str(reason) if reason.is_doubt else f"{Trust.unchecked}: {reason}" for reason in self.reasons]
        return "; ".join(said) or Trust.ok.value


def too_few(images: int, right: int) -> Reason | None:
    """The reason if a measurement has too few images for the trust checks; None if it has enough.

    Args:
        images: number of measured images.
        right: number of images that are right when clean.
    """
    if images < LEAST_IMAGES:
        return Reason.of(TrustCode.few_images, images=images, needed=LEAST_IMAGES)
    if right < LEAST_RIGHT:
        return Reason.of(TrustCode.few_right, right=right, images=images, needed=LEAST_RIGHT)
    return None
