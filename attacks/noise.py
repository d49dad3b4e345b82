"""Noise: what an attack has to beat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.attacks.engine.restarts import WithRestarts
from robustbench_tin.threat import Ball

DISTRIBUTIONS = ("uniform", "gaussian")


@dataclass(frozen=True, kw_only=True)
class Noise(WithRestarts):
    """Random points of the ball: no attack, but the baseline that tells whether one works.

    Attributes:
        distribution: ``uniform`` in the ball; ``gaussian``: linf of standard deviation eps a value, cut to
            the ball; l2 of a random direction and of length eps. Both are then cut to the pixel box.
        restarts: independent draws, at least 1; of several the one that is worst for the model.
    """

    name: ClassVar[str] = "noise"
    needs_gradients: ClassVar[bool] = False

    distribution: str = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.distribution in DISTRIBUTIONS, "distribution", " or ".join(DISTRIBUTIONS))

    def gradients(self, budgets: int) -> int:
        return 0

    def tries(
        self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator
    ) -> Iterator[Tensor]:
        return (self._drawn(ball, generator) for _ in range(self.restarts))

    def _drawn(self, ball: Ball, generator: torch.Generator) -> Tensor:
        if self.distribution == "uniform":
            return ball.random(generator)
        normal = torch.randn(
            ball.images.shape, generator=generator, device=ball.images.device, dtype=torch.float32
        )
        change = normal if ball.norm == "linf" else ball.direction(normal)
        return ball.project(ball.images + ball.eps * change)
