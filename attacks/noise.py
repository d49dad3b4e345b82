"""Noise: the baseline that an attack has to beat."""

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
    """Random points of the ball: not an attack, but the baseline that shows whether an attack works.

    Attributes:
        distribution: ``uniform`` in the ball, or ``gaussian``: for linf with a standard deviation of eps per
            value, clipped to the ball; for l2 in a random direction with length eps. Both are then clipped to
            the pixel box.
        restarts: number of independent draws, at least 1; the worst one for the model counts.
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
