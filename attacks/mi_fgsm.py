"""The momentum iterative fast gradient sign method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_tin.attacks.base import IterativeAttack
from robustbench_tin.attacks.engine.gradient_ascent import GradientAscent
from robustbench_tin.attacks.engine.state import AttackInputs, AttackState
from robustbench_tin.attacks.losses import cross_entropy


@dataclass(frozen=True, kw_only=True)
class MIFGSM(IterativeAttack):
    """Steps along a running sum of gradients, from the clean image; its images transfer well.

    Each gradient is divided by the sum of its absolute values before it is added. Dong, Liao, Pang, Su,
    Zhu, Hu and Li, 2018, "Boosting Adversarial Attacks with Momentum", arXiv 1710.06081.

    Attributes:
        steps: gradient steps, at least 1.
        alpha: length of a step in units of the pixel range; None for eps / steps.
        decay: factor of the sum at each step, 0 or more; with 1, nothing is forgotten.
    """

    name: ClassVar[str] = "mi-fgsm"
    lengths: ClassVar[tuple[str, ...]] = ("alpha",)

    steps: int = 10
    alpha: float | None = None
    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.steps >= 1, "steps", "1 or more")
        self.require(self.alpha is None or 0 < self.alpha < math.inf, "alpha", "more than 0")
        self.require(0 <= self.decay < math.inf, "decay", "0 or more")

    def gradients(self, budgets: int) -> int:
        return budgets * self.steps

    def begin(self, inputs: AttackInputs) -> AttackState:
        return _Momentum(
            inputs=inputs,
            points=inputs.ball.images,
            queries_left=torch.full_like(inputs.labels, self.steps),
            momentum=torch.zeros_like(inputs.ball.images),
            alpha=inputs.ball.eps / self.steps if self.alpha is None else self.alpha,
            decay=self.decay,
        )


@dataclass
class _Momentum(GradientAscent):
    """Attributes: momentum, the running sum ``(N, C, H, W)``."""

    momentum: Tensor
    alpha: float
    decay: float

    def loss(self, logits: Tensor, rows: slice) -> Tensor:
        return cross_entropy(logits, self.inputs.labels[rows])

    def slope(self, gradient: Tensor) -> Tensor:
        self.momentum = self.decay * self.momentum + _unit_sum(gradient)
        return self.momentum

    def length(self) -> float:
        return self.alpha


def _unit_sum(gradient: Tensor) -> Tensor:
    """Gradients whose absolute values sum to 1, or zeros."""
    # Divided by the largest value first, so that sums of tiny gradients do not vanish.
    largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    scaled = gradient / torch.where(largest > 0, largest, 1.0)
    total = scaled.abs().sum(dim=(1, 2, 3), keepdim=True)
    return scaled / torch.where(total > 0, total, 1.0)
