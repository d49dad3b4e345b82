"""The fast gradient sign method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.threat import Ball

# Wong, Rice and Kolter's step from a random start, in units of eps.
_STEP_FROM_RANDOM = 1.25


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One step along the gradient's sign (l2: along the gradient), from the clean image.

    The gradient at the clean image does not depend on eps, so one gradient serves all budgets. Goodfellow,
    Shlens and Szegedy, 2015, "Explaining and Harnessing Adversarial Examples", arXiv 1412.6572. With a random
    start it is the attack of Wong, Rice and Kolter, 2020, "Fast is better than free: Revisiting adversarial
    training", arXiv 2001.03994, with one gradient per budget.

    Attributes:
        random_start: start at a random point of the ball; otherwise at the clean image.
        alpha: length of the step in units of the pixel range; None for eps, or 1.25 × eps with a random
            start.
    """

    name: ClassVar[str] = "fgsm"
    lengths: ClassVar[tuple[str, ...]] = ("alpha",)

    random_start: bool = False
    alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.alpha is None or 0 < self.alpha < math.inf, "alpha", "more than 0")

    def gradients(self, budgets: int) -> int:
        return budgets if self.random_start else 1

    def run(self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return self.sweep(attacked, labels, [ball], [generator])[0]

    def sweep(
        self,
        attacked: AttackedModel,
        labels: Tensor,
        balls: Sequence[Ball],
        generators: Sequence[torch.Generator],
    ) -> list[Tensor]:
        if not self.random_start:
            direction = balls[0].direction(attacked.gradient(balls[0].images, labels))
            return [ball.project(ball.images + self._step(ball) * direction) for ball in balls]
        moved = []
        for ball, generator in zip(balls, generators, strict=True):
            start = ball.random(generator)
            direction = ball.direction(attacked.gradient(start, labels))
            moved.append(ball.project(start + self._step(ball) * direction))
        return moved

    def _step(self, ball: Ball) -> float:
        if self.alpha is not None:
            return self.alpha
        return ball.eps * (_STEP_FROM_RANDOM if self.random_start else 1)
