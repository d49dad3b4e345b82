"""The results of a check: for each measurement, and for the check as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.gate.candidate import MeasurementKey
from robustbench_tin.benchmarks.gate.comparison_mode import ComparisonMode
from robustbench_tin.benchmarks.statistics.paired import Changes
from robustbench_tin.benchmarks.statistics.spread import Spread
from robustbench_tin.text import counted

PASSED, WORSE, INCOMPARABLE = 0, 1, 2


class CheckStatus(StrEnum):
    """The status of one measurement; if several apply, the first in this order is chosen."""

    worse = "worse"
    below = "below its floor"
    untrained = "untrained"
    suspicious = "suspicious"
    incomparable = "cannot compare"
    better = "better"
    new = "new"
    same = "not worse"

    @property
    def grave(self) -> bool:
        """Whether the measurement fails or cannot be compared."""
        return self.fails or self is CheckStatus.incomparable

    @property
    def fails(self) -> bool:
        """Whether the measurement fails the check: robustness is too low, or the figure is unreliable."""
        return self in (
            CheckStatus.worse,
            CheckStatus.below,
            CheckStatus.untrained,
            CheckStatus.suspicious,
        )


class FindingCode(StrEnum):
    """Reasons that fail a check as a whole, instead of a single measurement."""

    low_power = "too little power"
    other_weights = "other weights"
    other_text = "the card was changed"


@dataclass(frozen=True)
class Finding:
    """A reason that fails a check as a whole.

    Attributes:
        code: the kind of finding.
        text: the finding with its figures, a sentence for people.
    """

    code: FindingCode
    text: str


@dataclass(frozen=True)
class CheckResult:
    """The result for one measurement.

    Attributes:
        model: name of the backbone.
        defense: canonical spec.
        key: attack, norm and eps.
        status: the status of the measurement.
        reasons: sentences for people: the reasons for the status, and other remarks.
        mode: the kind of comparison; None if no comparison was possible.
        before: the baseline's accuracy, a fraction; the mean over the seeds for a re-training. None if the
            baseline does not have the measurement.
        now: the candidate's accuracy, a fraction; None if it was not compared.
        chance: Holm-corrected p-value of the drop; None if there was no test.
        tolerance: largest allowed drop, a fraction.
        floor: smallest allowed accuracy, a fraction; None without a floor.
        changes: images lost and won; only for the same weights, else None.
        spread: spread between trainings; only for a re-training, else None.
        doubts: reasons to doubt the figure that the baseline's figure does not have.
        unchecked: reasons why the figure could not be checked, if they do not fail the check.
    """

    model: str
    defense: str
    key: MeasurementKey
    status: CheckStatus
    reasons: tuple[str, ...] = ()
    mode: ComparisonMode | None = None
    before: float | None = None
    now: float | None = None
    chance: float | None = None
    tolerance: float = 0.0
    floor: float | None = None
    changes: Changes | None = None
    spread: Spread | None = None
    doubts: tuple[Reason, ...] = ()
    unchecked: tuple[Reason, ...] = ()

    @property
    def label(self) -> str:
        """Name for people, such as ``resnet50 + none, pgd@0.03``."""
        return f"{self.model} + {self.defense}, {self.key.label}"

    @property
    def moved(self) -> bool:
        """Whether the status is another than "not worse"."""
        return self.status is not CheckStatus.same

    @property
    def drop(self) -> float | None:
        """Lost accuracy, a fraction; negative if accuracy rose; None if one of both is not known."""
        return None if self.before is None or self.now is None else self.before - self.now


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    Attributes:
        candidate: name of the checked models, for people.
        baseline: path of the baseline file; None if only floors were checked.
        images: number of images of each measurement.
        level: false-alarm rate: the probability that a check fails although nothing got worse.
        results: the results of all measurements of the baseline and of the candidate, in order.
        facts: the kinds of comparison and the changes since the baseline, one sentence each.
        warnings: warnings, one sentence each.
        hints: possible causes of a worse robustness, one sentence each.
        update: the command that makes a new baseline of the candidate; empty if nothing would change.
        failure: why the check has no result; empty if it was completed.
        findings: reasons that fail the check as a whole.
        only_moved: whether people see only the rows of measurements whose status changed.
    """

    candidate: str
    baseline: str | None
    images: int
    level: float
    results: tuple[CheckResult, ...]
    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    update: str = ""
    failure: str = ""
    findings: tuple[Finding, ...] = ()
    only_moved: bool = False

    @property
    def shown(self) -> list[CheckResult]:
        """The results shown to people: all, or only those that moved."""
        return [result for result in self.results if not self.only_moved or result.moved]

    def of(self, *statuses: CheckStatus) -> list[CheckResult]:
        """The results with one of these statuses."""
        return [result for result in self.results if result.status in statuses]

    @property
    def failed(self) -> list[CheckResult]:
        """The results that fail the check."""
        return [result for result in self.results if result.status.fails]

    @property
    def exit_code(self) -> int:
        """0 if the check passed, 1 if it failed, 2 if it did not fail but something cannot be compared."""
        if self.failed or self.findings:
            return WORSE
        return INCOMPARABLE if self.failure or self.of(CheckStatus.incomparable) else PASSED

    @property
    def summary(self) -> str:
        """One line: the number of measurements for each status, or why the check has no result."""
        if self.failure:
            return f"Robustness check CANNOT COMPARE: {self.failure}"
        counts = [(status, len(self.of(status))) for status in CheckStatus]
        statuses = ", ".join(f"{count} {status.value}" for status, count in counts if count)
        statuses += "".join(f"; {finding.code.value}" for finding in self.findings)
        outcome = {PASSED: "passed", WORSE: "FAILED", INCOMPARABLE: "CANNOT COMPARE"}[self.exit_code]
        return f"Robustness check {outcome}: {counted(len(self.results), 'measurement')}: {statuses}."


def grouped(
    results: Sequence[CheckResult], field: Literal["reasons", "unchecked"] = "reasons"
) -> dict[str | Reason, list[CheckResult]]:
    """Group results by reason, so that each reason is shown once.

    Args:
        results: results of a check.
        field: the reasons to group by.
    """
    reasons: dict[str | Reason, list[CheckResult]] = {}
    for result in results:
        for reason in getattr(result, field):
            reasons.setdefault(reason, []).append(result)
    return reasons
