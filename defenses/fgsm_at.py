"""FGSM adversarial training with a random start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_tin.defenses.base import Defense
from robustbench_tin.threat import ThreatModel
from robustbench_tin.training.context import Context
from robustbench_tin.training.objective import classification_loss


@dataclass(frozen=True)
class FGSMAdversarialTraining(Defense):
    """Train on images moved by one FGSM step from a random point of the linf ball.

    Wong, Rice and Kolter, 2020, "Fast is better than free: Revisiting adversarial training",
    arXiv 2001.03994.

    Attributes:
        eps: radius of the ball, in units of the pixel range.
        alpha: length of the step; None: 1.25 × eps.
    """

    name: ClassVar[str] = "fgsm-at"
    relative_cost: ClassVar[float] = 1.7

    eps: float = 8 / 255
    alpha: float | None = None

    def __post_init__(self) -> None:
        self.require(0 < self.eps < math.inf, "eps", "more than 0, in units of the pixel range")
        self.require(self.alpha is None or 0 < self.alpha < math.inf, "alpha", "more than 0")

    def loss(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        alpha = 1.25 * self.eps if self.alpha is None else self.alpha
        ball = ThreatModel("linf", self.eps).ball(images)
        start = ball.random(context.generator).requires_grad_()
        start_loss = classification_loss(classifier, classifier(start), labels)
        (gradient,) = torch.autograd.grad(start_loss, start)
        adversarial = ball.project(start.detach() + alpha * gradient.sign())
        return classification_loss(classifier, classifier(adversarial), labels)
