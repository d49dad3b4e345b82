"""Projected gradient descent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack, IterativeAttack
from robustbench_tin.attacks.losses import cross_entropy
from robustbench_tin.attacks.oracle import Oracle
from robustbench_tin.attacks.search import Answer, Search, Task
from robustbench_tin.metrics import in_top
from robustbench_tin.threat import Ball


@dataclass(frozen=True, kw_only=True)
class PGD(IterativeAttack):
    """Steps up the cross-entropy inside the ball, from a random start; the last iterate counts.

    Of several restarts the one that fools counts, then the one of the highest loss. Madry, Makelov,
    Schmidt, Tsipras and Vladu, 2018, "Towards Deep Learning Models Resistant to Adversarial
    Attacks", arXiv 1706.06083.

    Attributes:
        steps: gradient steps, at least 1.
        alpha: length of a step in units of the pixel range; None: 2.5 × eps / steps.
        restarts: independent starts, at least 1.
        random_start: start at a random point of the ball; off: at the clean image.
    """

    name: ClassVar[str] = "pgd"
    lengths: ClassVar[tuple[str, ...]] = ("alpha",)

    steps: int = 10
    alpha: float | None = None
    restarts: int = 1
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.steps >= 1, "steps", "1 or more")
        self.require(self.restarts >= 1, "restarts", "1 or more")
        self.require(self.alpha is None or 0 < self.alpha < math.inf, "alpha", "more than 0")
        self.require(self.random_start or self.restarts == 1, "restarts", "1 without a random start")

    def gradients(self, budgets: int) -> int:
        return budgets * self.steps * self.restarts

    def stages(self, classes: int) -> Sequence[Attack]:
        return [replace(self, restarts=1)] * self.restarts

    def begin(self, task: Task) -> Search:
        return _Climb(
            task=task,
            points=task.ball.random(task.generator) if self.random_start else task.ball.images,
            left=torch.full_like(task.labels, self.steps),
            alpha=2.5 * task.ball.eps / self.steps if self.alpha is None else self.alpha,
        )

    def run(self, oracle: Oracle, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        worst = super().run(oracle, labels, ball, generator)
        if self.restarts == 1:
            return worst
        worst_score = _score(oracle.logits(worst), labels)
        for _ in range(self.restarts - 1):
            other = super().run(oracle, labels, ball, generator)
            score = _score(oracle.logits(other), labels)
            worse = score > worst_score
            worst = torch.where(worse.view(-1, 1, 1, 1), other, worst)
            worst_score = torch.maximum(score, worst_score)
        return worst


@dataclass
class _Climb(Search):
    """Signed (l2: normalised) gradient steps of a fixed length."""

    alpha: float

    def loss(self, logits: Tensor, rows: slice) -> Tensor:
        return cross_entropy(logits, self.task.labels[rows])

    def move(self, answer: Answer) -> None:
        assert answer.gradient is not None
        ball = self.task.ball
        self.points = ball.project(self.points + self.alpha * ball.direction(answer.gradient))
        self.left = self.left - 1


def _score(logits: Tensor, labels: Tensor) -> Tensor:
    """How bad for the model: any mistake above any loss, then the loss, squeezed below 1."""
    loss = cross_entropy(logits.double(), labels)
    return (~in_top(logits, labels, k=1)).double() + loss / (1 + loss)
