"""The fast gradient sign method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.oracle import Oracle
from robustbench_tin.threat import Ball


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One step of length eps along the gradient's sign (l2: along the gradient), from the clean image.

    The gradient does not depend on eps, so one is taken for all budgets. Goodfellow, Shlens and
    Szegedy, 2015, "Explaining and Harnessing Adversarial Examples", arXiv 1412.6572.
    """

    name: ClassVar[str] = "fgsm"

    def gradients(self, budgets: int) -> int:
        return 1

    def run(self, oracle: Oracle, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return self.sweep(oracle, labels, [ball], [generator])[0]

    def sweep(
        self, oracle: Oracle, labels: Tensor, balls: Sequence[Ball], generators: Sequence[torch.Generator]
    ) -> list[Tensor]:
        direction = balls[0].direction(oracle.gradient(balls[0].images, labels))
        return [ball.project(ball.images + ball.eps * direction) for ball in balls]
