"""Gradient ascent inside a ball: the step that PGD, MI-FGSM and the stages of ``fast`` have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from robustbench_tin.attacks.engine.state import AttackState, ModelOutput
from robustbench_tin.threat import Ball


def ascent_step(ball: Ball, points: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
    """Move points along the steepest direction of a gradient, and back into the ball and the pixel box.

    Args:
        ball: the allowed points.
        points: float32 ``(N, C, H, W)``.
        gradient: gradient at each point, of the same shape.
        length: length of the step in the ball's norm, in units of the pixel range; a number, or
            ``(N, 1, 1, 1)``.

    Returns:
        float32 ``(N, C, H, W)``.
    """
    return ball.project(points + length * ball.direction(gradient))


@dataclass
class GradientAscent(AttackState):
    """Steps up the gradient of :meth:`loss`, one per query."""

    @abstractmethod
    def length(self) -> float | Tensor:
        """The length of the next step, as :func:`ascent_step` takes it."""

    def slope(self, gradient: Tensor) -> Tensor:
        """The gradient that gives the direction; the model's own unless overridden."""
        return gradient

    def move(self, answer: ModelOutput) -> None:
        assert answer.gradient is not None
        self.points = ascent_step(self.inputs.ball, self.points, self.slope(answer.gradient), self.length())
        self.queries_left = self.queries_left - 1
