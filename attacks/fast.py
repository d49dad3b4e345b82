"""A quick ensemble of few, well-placed steps that estimates its own error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack, IterativeAttack
from robustbench_tin.attacks.engine.ensemble import Ensemble
from robustbench_tin.attacks.engine.gradient_ascent import GradientAscent
from robustbench_tin.attacks.engine.state import AttackInputs, AttackState
from robustbench_tin.attacks.losses import targeted_margin

if TYPE_CHECKING:
    from robustbench_tin.attacks.engine.stop_on_success import StageReport


@dataclass(frozen=True, kw_only=True)
class Margin(IterativeAttack):
    """Steps up the margin whose length falls from eps to nothing on a half cosine; a stage of :class:`Fast`.

    Attributes:
        steps: gradient steps, at least 1.
        target: raise the wrong class of this clean rank, 1 for the strongest; None for the class that is
            strongest at each step.
    """

    name: ClassVar[str] = "margin"
    needs_clean_logits: ClassVar[bool] = True

    criterion: str | None = "top1"
    steps: int = 19
    target: int | None = None

    def begin(self, inputs: AttackInputs) -> AttackState:
        targets = (
            inputs.labels.new_empty(len(inputs.labels), 0)
            if self.target is None
            else inputs.criterion.targets(inputs.clean_logits, inputs.labels, self.target)
        )
        return _FallingSteps(
            inputs=inputs,
            points=inputs.ball.random(inputs.generator),
            queries_left=torch.full_like(inputs.labels, self.steps),
            steps=self.steps,
            targets=targets,
        )


@dataclass
class _FallingSteps(GradientAscent):
    """The steps of :class:`Margin`.

    Attributes:
        steps: number of steps of the whole budget.
        targets: classes to raise, int64 ``(N, k)``; ``(N, 0)`` without targets.
    """

    steps: int
    targets: Tensor

    def loss(self, logits: Tensor, rows: slice) -> Tensor:
        labels, targets = self.inputs.labels[rows], self.targets[rows]
        if targets.shape[1]:
            return targeted_margin(logits, labels, targets)
        return self.inputs.criterion.margin(logits, labels)

    def length(self) -> Tensor:
        done = 1 - self.queries_left.float() / self.steps
        return (self.inputs.ball.eps * (1 + torch.cos(math.pi * done)) / 2).view(-1, 1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Fast(Ensemble):
    """A quick estimate of AutoAttack's robust accuracy, for a small part of its passes.

    Its stages are short ascents of the margin between a wrong class and the label: first the strongest class
    at each step, then one likely class after the other. Each starts at a random point, with steps that fall
    from eps on a cosine. An image leaves as soon as it is adversarial. The attack extrapolates the successes
    of its stages. While it expects more than ``tolerance`` of the images to follow, it adds stages: other
    classes, then longer ascents.

    Margins as losses, few steps, and passes for the images that need them are ideas of Liu, Cheng, Gao, Liu,
    Zhang and Song, 2022, "Practical Evaluation of Adversarial Robustness via Adaptive Auto Attack", arXiv
    2203.05154, and of arXiv 2411.15210 (2024).

    Attributes:
        tolerance: it stops if it expects at most this part of the images to become adversarial, 0 to 1.
        most_stages: largest number of stages; a remark reports if this limit ended the attack.
    """

    name: ClassVar[str] = "fast"

    tolerance: float = 0.003
    most_stages: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.tolerance <= 1, "tolerance", "0 to 1")
        self.require(self.most_stages >= 1, "most_stages", "1 or more")

    def gradients(self, budgets: int) -> int:
        return budgets * sum(stage.steps for stage in self.stages(10) if isinstance(stage, Margin))

    def stages(self, classes: int) -> Sequence[Attack]:
        return [self._untargeted(10), self._untargeted(24), *self._toward(classes, 2, 3, steps=19)]

    def next_stage(self, reports: Sequence[StageReport], classes: int) -> Attack | None:
        first = self.stages(classes)
        if len(reports) < len(first):
            return first[len(reports)]
        if len(reports) >= self.most_stages or expected(reports) <= self.tolerance * reports[0].entered:
            return None
        return self._further(len(reports) - len(first), classes)

    def conclusions(self, reports: Sequence[StageReport]) -> Sequence[str]:
        if not reports:
            return ()
        last = ", ".join(str(report.successes) for report in reports[-3:])
        more = expected(reports)
        sure = more <= self.tolerance * reports[0].entered
        rest = f"about {more:.1f} more successes expected" + ("" if sure else ": use autoattack")
        return (f"fast: successes of its last stages: {last} of {reports[0].entered}; {rest}",)

    def _further(self, index: int, classes: int) -> Attack:
        others = self._toward(classes, 1, *range(4, 10), steps=19)
        return others[index] if index < len(others) else self._untargeted(100)

    def _untargeted(self, steps: int) -> Attack:
        return Margin(criterion=self.criterion, steps=steps)

    def _toward(self, classes: int, *ranks: int, steps: int) -> Sequence[Attack]:
        there = self.goal.ranks(classes, classes)
        return [Margin(criterion=self.criterion, steps=steps, target=rank) for rank in ranks if rank in there]


def expected(reports: Sequence[StageReport]) -> float:
    """The expected number of successes of further stages.

    It is the rest of a geometric series through the successes of the last two stages and of the two before,
    and at most the number of images left. Without a success in the last two stages it is 0. If they had as
    many as the two before, the series falls by a tenth.

    Args:
        reports: the reports of the stages so far, at least one.
    """
    successes = [report.successes for report in reports]
    last, before = sum(successes[-2:]), sum(successes[-4:-2])
    ratio = min(last / max(before, 1), 0.9)
    return min(last * ratio / (1 - ratio), reports[-1].entered - reports[-1].successes)
