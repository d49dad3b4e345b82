"""The yardstick: published figures, such as a leaderboard's, beside the measured ones and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.gate.candidate import MeasurementKey
from robustbench_tin.benchmarks.gate.rules import Rule, parse_rule
from robustbench_tin.benchmarks.runs.records import Record
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.metrics import interval
from robustbench_tin.specs import short_numbers

OPTION = "published"


class Agreement(Enum):
    """Where a published figure lies."""

    inside = "inside the interval"
    below = "below the interval: the model measures better here"
    above = "above the interval: the model measures worse here"


@dataclass(frozen=True)
class PublishedFigure:
    """A published accuracy and the measured one.

    Attributes:
        label: model and measure.
        published: a fraction.
        measured: likewise.
        low, high: the 95 % interval of the measured one, which covers the choice of images.
        images: number of images.
    """

    label: str
    published: float
    measured: float
    low: float
    high: float
    images: int

    @property
    def agreement(self) -> Agreement:
        """Whether the published figure lies in the interval."""
        if self.published < self.low:
            return Agreement.below
        return Agreement.above if self.published > self.high else Agreement.inside

    @property
    def text(self) -> str:
        """A line for people."""
        return (
            f"{self.label}: {100 * self.measured:.2f} % of {self.images:,} images, 95 % interval"
            f" {100 * self.low:.2f} to {100 * self.high:.2f}; published {100 * self.published:.2f},"
            f" {self.agreement.value}"
        )


def parse_published(texts: Sequence[str]) -> list[Rule]:
    """Read published figures, in the grammar of the gate's rules.

    Raises:
        InvalidSettingError: for a text that cannot be read, or has no selector.
    """
    rules = [parse_rule(OPTION, text) for text in texts]
    for rule in rules:
        if rule.attack == "*":
            raise InvalidSettingError(
                f"{OPTION} got '{rule.text}'; expected a measure and a fraction, such as clean=0.8969 or"
                " autoattack@8/255=0.5953"
            )
    return rules


def compare_published(records: Sequence[Record], rules: Sequence[Rule]) -> list[PublishedFigure]:
    """Put published figures beside the measures that they fit.

    Args:
        records: of a run.
        rules: of :func:`parse_published`.

    Returns:
        A figure for each rule and each measure that fits it and did not fail.

    Raises:
        InvalidSettingError: for a rule that fits no measure.
    """
    keys = [MeasurementKey(short_numbers(record.attack), record.norm, record.eps) for record in records]
    found = []
    for rule in rules:
        fitting = [
            (record, key)
            for record, key in zip(records, keys, strict=True)
            if rule.fits(record.model, record.defense, key)
        ]
        if not fitting:
            known = ", ".join(dict.fromkeys(key.label for key in keys))
            raise InvalidSettingError(f"{OPTION} '{rule.text}' fits no measure; there are: {known}")
        found += [
            _figure(record, key, rule)
            for record, key in fitting
            if record.status == OK and record.top1 is not None
        ]
    return found


def _figure(record: Record, key: MeasurementKey, rule: Rule) -> PublishedFigure:
    assert record.top1 is not None
    low, high = interval(round(record.top1 * record.n), record.n)
    return PublishedFigure(f"{record.model}, {key.label}", rule.number, record.top1, low, high, record.n)
