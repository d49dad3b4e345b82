"""FGSM adversarial training with a random start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from robustbench_tin.defenses.adversarial_training import AdversarialTraining, image_gradient
from robustbench_tin.training.context import Context
from robustbench_tin.training.objective import classification_loss


@dataclass(frozen=True)
class FGSMAdversarialTraining(AdversarialTraining):
    """Train on images moved by one FGSM step from a random point of the linf ball.

    Wong, Rice and Kolter, 2020, "Fast is better than free: Revisiting adversarial training",
    arXiv 2001.03994. As in the paper, the step is computed in train mode.

    Attributes:
        eps: radius of the ball, in units of the pixel range.
        alpha: length of the step, in units of the pixel range; None for 1.25 × eps.
    """

    name: ClassVar[str] = "fgsm-at"
    relative_cost: ClassVar[float] = 1.7
    single_step: ClassVar[bool] = True

    alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.alpha is None or 0 < self.alpha < math.inf, "alpha", "more than 0")

    def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        alpha = 1.25 * self.eps if self.alpha is None else self.alpha
        ball = self.threat.ball(images)
        start = ball.random(context.generator)
        gradient = image_gradient(classifier, start, partial(classification_loss, classifier, labels=labels))
        return ball.project(start + alpha * gradient.sign())
