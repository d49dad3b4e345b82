"""PGD adversarial training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from robustbench_tin.defenses.adversarial_training import MultiStepTraining
from robustbench_tin.training.context import Context
from robustbench_tin.training.objective import classification_loss


@dataclass(frozen=True)
class PGDAdversarialTraining(MultiStepTraining):
    """Train on adversarial images made by PGD from a random point of the ball.

    Madry, Makelov, Schmidt, Tsipras and Vladu, 2018, "Towards Deep Learning Models Resistant to Adversarial
    Attacks", arXiv 1706.06083: 7 steps of 2/255 in a ball of 8/255. The steps are computed in train mode,
    because batch norm in the paper's graph has only that mode in training.

    Attributes:
        eps: radius of the ball, in units of the pixel range.
        steps: number of gradient steps for each image.
        alpha: length of a step; None for eps / 4 under linf, 2 eps / steps under l2.
        norm: ``linf`` or ``l2``.
    """

    name: ClassVar[str] = "pgd-at"

    steps: int = 7

    @property
    def relative_cost(self) -> float:  # type: ignore[override]
        return 1 + 0.7 * self.steps

    def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        ball = self.threat.ball(images)
        loss = partial(classification_loss, classifier, labels=labels)
        return self.climb(classifier, ball, ball.random(context.generator), loss)
