"""Compare published figures, for example of a leaderboard, with measured figures and their intervals."""

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
    """The place of a published figure relative to the measured interval."""

    inside = "inside the interval"
    below = "below the interval: the model measures better here"
    above = "above the interval: the model measures worse here"


@dataclass(frozen=True)
class PublishedFigure:
    """A published accuracy and the measured accuracy.

    Attributes:
        label: model and measurement.
        published: the published accuracy, a fraction.
        measured: the measured accuracy, a fraction.
        low, high: 95 % interval of the measured accuracy, fractions; it covers the choice of images.
        images: number of measured images.
    """

    label: str
    published: float
    measured: float
    low: float
    high: float
    images: int

    @property
    def agreement(self) -> Agreement:
        """Whether the published figure is inside, below or above the interval."""
        if self.published < self.low:
            return Agreement.below
        return Agreement.above if self.published > self.high else Agreement.inside

    @property
    def text(self) -> str:
        """One line for people."""
        return (
            f"{self.label}: {100 * self.measured:.2f} % of {self.images:,} images, 95 % interval"
            f" {100 * self.low:.2f} to {100 * self.high:.2f}; published {100 * self.published:.2f},"
            f" {self.agreement.value}"
        )


def parse_published(texts: Sequence[str]) -> list[Rule]:
    """Read published figures, in the grammar of the gate's rules.

    Args:
        texts: texts such as ``clean=0.8969``; the numbers are fractions.

    Raises:
        InvalidSettingError: if a text cannot be read, or does not name a measurement.
    """
    rules = [parse_rule(OPTION, text) for text in texts]
    for rule in rules:
        if rule.attack == "*":
            raise InvalidSettingError(
                f"{OPTION} got '{rule.text}'; expected a measurement and a fraction, such as clean=0.8969 or"
                " autoattack@8/255=0.5953"
            )
    return rules


def compare_published(records: Sequence[Record], rules: Sequence[Rule]) -> list[PublishedFigure]:
    """Compare published figures with the matching measurements.

    Args:
        records: records of a run.
        rules: result of :func:`parse_published`.

    Returns:
        One comparison for each rule and each matching measurement that did not fail.

    Raises:
        InvalidSettingError: if a rule matches no measurement.
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
            raise InvalidSettingError(
                f"{OPTION} '{rule.text}' matches no measurement; expected one of: {known}"
            )
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
