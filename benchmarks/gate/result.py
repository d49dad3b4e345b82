"""What a check finds out about one measure, and about all."""

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
    """On one measure; the first of those that apply, in this order."""

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
        """Whether it fails, or cannot be compared."""
        return self.fails or self is CheckStatus.incomparable

    @property
    def fails(self) -> bool:
        """Whether robustness got worse, or may only look as if it had not."""
        return self in (
            CheckStatus.worse,
            CheckStatus.below,
            CheckStatus.untrained,
            CheckStatus.suspicious,
        )


class FindingCode(StrEnum):
    """What fails a check as a whole, rather than one of its measures."""

    low_power = "too little power"
    other_weights = "other weights"
    other_text = "the card was changed"


@dataclass(frozen=True)
class Finding:
    """Something that fails a check as a whole.

    Attributes:
        code: what it is.
        text: the same with its figures, a sentence for people.
    """

    code: FindingCode
    text: str


@dataclass(frozen=True)
class CheckResult:
    """One measure beside its baseline.

    Attributes:
        model: the backbone.
        defense: canonical spec.
        key: attack, norm and eps.
        status: on it.
        reasons: each a sentence for people: of the verdict, and whatever else must be known.
        mode: the question that was asked; None where none could be.
        before: the baseline's accuracy, a fraction, the mean over its seeds in a re-training; None where it
            has none.
        now: the accuracy that is checked, likewise.
        chance: Holm-corrected p-value of the drop; None where nothing was tested.
        tolerance: how much it may lose.
        floor: what it must be at least, or None.
        changes: images lost and won; None but for the same weights.
        spread: between trainings; None but for a re-training.
        doubts: what speaks against believing the figure and not against the baseline's.
        unchecked: why the trust checks could not judge the figure, if that does not fail the check.
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
        """For people: ``resnet50 + none, pgd@0.03``."""
        return f"{self.model} + {self.defense}, {self.key.label}"

    @property
    def moved(self) -> bool:
        """Whether it is anything but as good as before."""
        return self.status is not CheckStatus.same

    @property
    def drop(self) -> float | None:
        """Accuracy lost, a fraction; negative where it rose; None where it cannot be known."""
        return None if self.before is None or self.now is None else self.before - self.now


@dataclass(frozen=True)
class CheckReport:
    """All that a check found.

    Attributes:
        candidate: what was checked, for people.
        baseline: the file that it was compared with; None: floors only.
        images: that each measure has.
        level: at most this part of tables without a true drop fails by chance.
        results: every measure of the baseline and of the subject, in order.
        facts: which question was asked and what changed, a sentence each.
        warnings: what must not be missed, a sentence each.
        hints: where to look for what made it worse.
        update: the command that makes a new baseline of the subject.
        failure: why the check came to no findings; empty if it came to its end.
        findings: what fails the check as a whole.
        only_moved: show only the rows of measures that moved, where a person reads them.
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
        """The results that a person sees: all, or those that moved."""
        return [result for result in self.results if not self.only_moved or result.moved]

    def of(self, *statuses: CheckStatus) -> list[CheckResult]:
        """The findings with one of these verdicts."""
        return [result for result in self.results if result.status in statuses]

    @property
    def failed(self) -> list[CheckResult]:
        """The findings that fail the check."""
        return [result for result in self.results if result.status.fails]

    @property
    def exit_code(self) -> int:
        """0: none worse; 1: some worse, whatever else; 2: none seen to be worse, but some not comparable."""
        if self.failed or self.findings:
            return WORSE
        return INCOMPARABLE if self.failure or self.of(CheckStatus.incomparable) else PASSED

    @property
    def summary(self) -> str:
        """One line: how many measures are what, or why nothing could be compared."""
        if self.failure:
            return f"Robustness check CANNOT COMPARE: {self.failure}"
        counts = [(status, len(self.of(status))) for status in CheckStatus]
        statuses = ", ".join(f"{count} {status.value}" for status, count in counts if count)
        statuses += "".join(f"; {finding.code.value}" for finding in self.findings)
        outcome = {PASSED: "passed", WORSE: "FAILED", INCOMPARABLE: "CANNOT COMPARE"}[self.exit_code]
        return f"Robustness check {outcome}: {counted(len(self.results), 'measure')}: {statuses}."


def grouped(
    results: Sequence[CheckResult], field: Literal["reasons", "unchecked"] = "reasons"
) -> dict[str | Reason, list[CheckResult]]:
    """Each reason with the findings that it stands beside, so that it is said once."""
    reasons: dict[str | Reason, list[CheckResult]] = {}
    for result in results:
        for reason in getattr(result, field):
            reasons.setdefault(reason, []).append(result)
    return reasons
