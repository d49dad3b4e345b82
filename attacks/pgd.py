"""Projected gradient descent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.engine.gradient_ascent import GradientAscent
from robustbench_tin.attacks.engine.restarts import IterativeWithRestarts
from robustbench_tin.attacks.engine.state import AttackInputs, AttackState
from robustbench_tin.attacks.losses import cross_entropy
from robustbench_tin.metrics import in_top


@dataclass(frozen=True, kw_only=True)
class PGD(IterativeWithRestarts):
    """Steps up the cross-entropy inside the ball, from a random start; the last iterate counts.

    If there are several restarts, a success ranks before the others, then the highest loss counts. Madry,
    Makelov, Schmidt, Tsipras and Vladu, 2018, "Towards Deep Learning Models Resistant to Adversarial
    Attacks", arXiv 1706.06083.

    Attributes:
        steps: gradient steps, at least 1.
        alpha: length of a step in units of the pixel range; None for 2.5 × eps / steps.
        restarts: number of independent starts, at least 1.
        random_start: start at a random point of the ball; otherwise at the clean image.
    """

    name: ClassVar[str] = "pgd"
    lengths: ClassVar[tuple[str, ...]] = ("alpha",)

    steps: int = 10
    alpha: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.steps >= 1, "steps", "1 or more")
        self.require(self.alpha is None or 0 < self.alpha < math.inf, "alpha", "more than 0")
        self.require(self.random_start or self.restarts == 1, "restarts", "1 without a random start")

    def gradients(self, budgets: int) -> int:
        return budgets * self.steps * self.restarts

    def begin(self, inputs: AttackInputs) -> AttackState:
        return _FixedSteps(
            inputs=inputs,
            points=inputs.ball.random(inputs.generator) if self.random_start else inputs.ball.images,
            queries_left=torch.full_like(inputs.labels, self.steps),
            alpha=2.5 * inputs.ball.eps / self.steps if self.alpha is None else self.alpha,
            objective=self.objective,
        )

    def objective(self, logits: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
        """The loss to climb, ``(N,)``, from logits ``(N, C)`` and labels ``(N,)``."""
        return cross_entropy(logits, labels)

    def score(self, logits: Tensor, labels: Tensor) -> Tensor:
        # A success above any loss, then the loss, squeezed below 1.
        loss = cross_entropy(logits.double(), labels)
        return (~in_top(logits, labels, k=1)).double() + loss / (1 + loss)


@dataclass
class _FixedSteps(GradientAscent):
    """Signed (l2: normalised) gradient steps of a fixed length."""

    alpha: float
    objective: Callable[[Tensor, Tensor, Criterion], Tensor]

    def loss(self, logits: Tensor, rows: slice) -> Tensor:
        return self.objective(logits, self.inputs.labels[rows], self.inputs.criterion)

    def length(self) -> float:
        return self.alpha
