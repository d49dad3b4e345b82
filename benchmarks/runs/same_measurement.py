"""Compare two measurements' inputs: are they the same images, under the same settings?"""

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
        images: number of images.
        classes: number of classes.
        fingerprint: fingerprint of the whole data set.
        measured_on: fingerprint of the measured images and labels alone; empty if unknown.
    """

    data: str
    images: int
    classes: int
    fingerprint: str
    measured_on: str

    @classmethod
    def of(cls, record: Record) -> Self:
        """The images of a record."""
        return cls(record.data, record.n, record.classes, record.data_fingerprint, record.measured_on)

    def difference(self, other: Self, mine: str, theirs: str) -> str | None:
        """The reason why these are not the same images, for people; None if they are the same.

        Args:
            other: the images of the other measurement.
            mine: a word for this measurement's place: ``here``.
            theirs: words for the other's place: ``in the baseline``.
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
    """The counted result: ``top1``, or ``top5`` if only that was measured."""
    return "top5" if record.top1 is None and record.top5 is not None else "top1"


def settings_of(record: Record) -> Mapping[str, str]:
    """The settings of a record's measurement; two records are comparable only if all of them agree."""
    # Baseline files hold these keys: another key would make every stored baseline incomparable.
    return {
        "mode": record.mode,
        "passes a gradient (eot)": str(record.eot),
        "oblivious": str(record.oblivious),
        "rounded to 8 bits": str(record.eight_bit),
        "counted": counted_rank(record),
    }
