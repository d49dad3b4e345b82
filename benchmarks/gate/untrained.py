"""A model that learned nothing: its figures mean nothing, so that no check of it may pass unless allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robustbench_tin.benchmarks.gate.candidate import Candidate, CandidateModel
from robustbench_tin.benchmarks.gate.result import CheckResult, CheckStatus
from robustbench_tin.benchmarks.gate.verdict_texts import percent
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.metrics import above_chance


def fail_untrained(results: Sequence[CheckResult], candidate: Candidate) -> list[CheckResult]:
    """Fail every measure of a model if the clean accuracy of one of its trainings is not above chance."""
    reasons = {name: why_untrained(models) for name, models in candidate.groups.items()}
    return [_failed(result, reasons.get((result.model, result.defense))) for result in results]


def _failed(result: CheckResult, reason: str | None) -> CheckResult:
    if reason is None:
        return result
    status = min(result.status, CheckStatus.untrained, key=list(CheckStatus).index)
    told = f"{reason} (let it pass: --allow-untrained)"
    return replace(result, status=status, reasons=(*result.reasons, told))


def why_untrained(models: Sequence[CandidateModel]) -> str | None:
    """Which of a model's trainings learned nothing, a sentence; None if none of them is known to."""
    for model in models:
        clean = next((figure for figure in model.figures if figure.key.attack == CLEAN), None)
        if clean is None or clean.hits is None or clean.record.above_chance is not False:
            continue
        n, classes = clean.record.n, clean.record.classes
        # So few images could not show it of a model that is right on each.
        if above_chance(n, n, classes):
            seed = f"seed {model.seed}: " if len(models) > 1 else ""
            return (
                f"{seed}clean accuracy, {percent(clean.right / n)} of {n:,} images, is not above chance for"
                f" {classes:,} classes: the model learned nothing that its figures could stand for"
            )
    return None
