"""A check's result does not depend on the texts of its messages."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from made_up import candidate, figure, table

from robustbench_tin.benchmarks.gate.baseline import make_baseline
from robustbench_tin.benchmarks.gate.candidate import CandidateModel
from robustbench_tin.benchmarks.gate.check import check
from robustbench_tin.messages import translated

LATE = "the attack still succeeded on 60 of 400 images in the last tenth of its budget: give it more steps"
DEAD = (
    "the gradient is zero or not finite on 90 of 400 images: attack a differentiable substitute, or attack"
    " without gradients (square)"
)
COARSE = "unchecked: the model's logits are too coarse to check its gradients"
FEW = "unchecked: too few clean images are right: 8 of 400, and 10 are needed"
TRUST = (None, "ok", LATE, DEAD, f"{LATE}; {FEW}")


def made(trust: str | None, pgd: int) -> CandidateModel:
    figures = tuple(
        figure(attack, eps, hits, trust=trust if attack == "pgd" else "unset")
        for (attack, eps), hits in table(pgd=pgd).items()
    )
    return CandidateModel("net", "none", 0, "w0", figures)


@pytest.mark.parametrize("pgd", [200, 390])
def test_verdicts_do_not_follow_from_texts(tmp_path: Path, pgd: int) -> None:
    for number, (before, now) in enumerate(itertools.product(TRUST, (*TRUST, COARSE))):
        models = made(before, 200), made(now, pgd)
        found = []
        for translate in (str, lambda text: "?"):
            with translated(translate):
                file = tmp_path / f"{number}.json"
                make_baseline([candidate(models[0])]).write(file)
                report = check(candidate(models[1]), file)
                found.append([(each.status, each.doubts, each.unchecked) for each in report.results])
        assert found[0] == found[1], (before, now)
