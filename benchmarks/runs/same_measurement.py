"""Are two measurements comparable: the same images, taken under the same settings?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from robustbench_tin.text import counted

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.runs.records import Record


@dataclass(frozen=True)
class MeasuredImages:
    """The images of a measurement.

    Attributes:
        data: the data set's name.
        images: number of them.
        classes: number of classes.
        fingerprint: of the whole data set.
        measured_on: of the measured images and labels alone; empty if it is not known.
    """

    data: str
    images: int
    classes: int
    fingerprint: str
    measured_on: str

    @classmethod
    def of(cls, record: Record) -> Self:
        """Those of a record."""
        return cls(record.data, record.n, record.classes, record.data_fingerprint, record.measured_on)

    def difference(self, other: Self, mine: str, theirs: str) -> str | None:
        """Why these are not the same images, for people; None if they are.

        Args:
            other: those of the other measurement.
            mine: where these are: ``here``.
            theirs: where the others are: ``in the baseline``.
        """
        here, there = self.measured_on, other.measured_on
        if not (here and there):
            here, there = self.fingerprint, other.fingerprint
        if here != there or self.images != other.images:
            return f"another data set: {other._shown} ({there}) {theirs}, {self._shown} ({here}) {mine}"
        if self.classes != other.classes:
            return f"another data set: {other.classes} classes {theirs}, {self.classes} {mine}"
        return None

    @property
    def _shown(self) -> str:
        return f"{self.data}, {counted(self.images, 'image')}"


def counted_rank(record: Record) -> str:
    """The result that counts: ``top1``, or ``top5`` if only that was measured."""
    return "top5" if record.top1 is None and record.top5 is not None else "top1"


def settings_of(record: Record) -> Mapping[str, str]:
    """The settings under which a record was measured; two are comparable only if all of them agree."""
    return {
        "mode": record.mode,
        "passes a gradient (eot)": str(record.eot),
        "oblivious": str(record.oblivious),
        "rounded to 8 bits": str(record.eight_bit),
        "counted": counted_rank(record),
    }
