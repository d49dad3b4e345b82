"""Fail the check of a model whose clean accuracy is not above chance, unless that is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robustbench_tin.benchmarks.gate.candidate import Candidate, CandidateModel
from robustbench_tin.benchmarks.gate.result import CheckResult, CheckStatus
from robustbench_tin.benchmarks.gate.verdict_texts import percent
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.metrics import above_chance


def fail_untrained(results: Sequence[CheckResult], candidate: Candidate) -> list[CheckResult]:
    """Fail all measurements of a model if the clean accuracy of one training is not above chance.

    Args:
        results: all results of a check.
        candidate: the checked models.

    Returns:
        The results in the same order.
    """
    reasons = {name: why_untrained(models) for name, models in candidate.groups.items()}
    return [_failed(result, reasons.get((result.model, result.defense))) for result in results]


def _failed(result: CheckResult, reason: str | None) -> CheckResult:
    if reason is None:
        return result
    status = min(result.status, CheckStatus.untrained, key=list(CheckStatus).index)
    told = f"{reason} (to let it pass, give --allow-untrained)"
    return replace(result, status=status, reasons=(*result.reasons, told))


def why_untrained(models: Sequence[CandidateModel]) -> str | None:
    """A sentence on the first training whose clean accuracy is not above chance; None if all are above.

    Args:
        models: the trainings of one backbone and defense.
    """
    for model in models:
        clean = next((figure for figure in model.figures if figure.key.attack == CLEAN), None)
        if clean is None or clean.hits is None or clean.record.above_chance is not False:
            continue
        n, classes = clean.record.n, clean.record.classes
        # With too few images, even a perfect model would not be significantly above chance.
        if above_chance(n, n, classes):
            seed = f"seed {model.seed}: " if len(models) > 1 else ""
            return (
                f"{seed}clean accuracy, {percent(clean.right / n)} of {n:,} images, is not above chance for"
                f" {classes:,} classes: the model seems untrained, so its figures mean nothing"
            )
    return None
