"""TRADES: cross-entropy on clean images, and divergence of the outputs on adversarial images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.defenses.adversarial_training import MultiStepTraining, eval_mode
from robustbench_tin.training.context import Context
from robustbench_tin.training.objective import classification_loss

START_NOISE = 0.001
"""Standard deviation of the noise at the start of the search, so that the divergence has a gradient there."""


@dataclass(frozen=True)
class DivergenceTraining(MultiStepTraining):
    """Training on clean images and on the divergence of the output within the ball.

    Attributes:
        beta: weight of the divergence, 0 or more.
    """

    softmax_only: ClassVar[bool] = True

    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.beta < math.inf, "beta", "0 or more")

    @property
    def relative_cost(self) -> float:  # type: ignore[override]
        return 2 + 0.7 * self.steps


@dataclass(frozen=True)
class TRADES(DivergenceTraining):
    """Trade clean accuracy for robust accuracy with a weight on the output's divergence within the ball.

    Zhang, Yu, Jiao, Xing, El Ghaoui and Jordan, 2019, "Theoretically Principled Trade-off between Robustness
    and Accuracy", arXiv 1901.08573: 10 steps, beta 6. As in their code, adversarial images maximise the
    divergence from the clean output in eval mode.

    Attributes:
        eps: radius of the ball, in units of the pixel range.
        steps: number of gradient steps for each image.
        alpha: length of a step; None for eps / 4 under linf, 2 eps / steps under l2.
        norm: ``linf`` or ``l2``.
        beta: weight of the divergence.
    """

    name: ClassVar[str] = "trades"

    def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        with eval_mode(classifier):
            with torch.no_grad():
                clean = classifier(images).log_softmax(dim=1)
            return self.climb(
                classifier,
                self.threat.ball(images),
                near(images, context),
                lambda logits: divergence(clean, logits.log_softmax(dim=1)).sum(),
            )

    def risk(
        self, classifier: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, context: Context
    ) -> Tensor:
        clean = classifier(images)
        moved = divergence(clean.log_softmax(dim=1), classifier(adversarial).log_softmax(dim=1))
        learned = classification_loss(classifier, clean, labels, context.label_smoothing)
        return learned + self.beta * moved.mean()


def near(images: Tensor, context: Context) -> Tensor:
    """The images with a little normal noise."""
    return images + START_NOISE * torch.randn(
        images.shape, generator=context.generator, device=images.device, dtype=torch.float32
    )


def divergence(clean: Tensor, moved: Tensor) -> Tensor:
    """Kullback-Leibler divergence between two outputs, from log probabilities ``(N, C)`` to ``(N,)``."""
    return functional.kl_div(moved, clean, reduction="none", log_target=True).sum(dim=1)
