"""Adversarial training: each batch is attacked, then the weights learn from the result."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.engine.gradient_ascent import ascent_step
from robustbench_tin.defenses.base import Defense
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import NORMS, Ball, ThreatModel, check_length
from robustbench_tin.training.context import Context, Objective
from robustbench_tin.training.objective import classification_loss


@dataclass(frozen=True)
class BallTraining(Defense):
    """Base of defenses that train against an attacker within a ball.

    Attributes:
        eps: radius of the ball, in units of the pixel range, more than 0.
    """

    eps: float = 8 / 255

    def __post_init__(self) -> None:
        self.require(0 < self.eps < math.inf, "eps", "more than 0, in units of the pixel range")
        for setting in ("eps", "alpha") if getattr(self, "norm", "linf") == "linf" else ():
            check_length(f"defense '{self.name}' got {setting}", getattr(self, setting, None) or 0)

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel("linf", self.eps)

    @abstractmethod
    def objective(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Objective:
        """See :meth:`Defense.objective`."""

    def loss(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        return self.objective(classifier, images, labels, context)()


@dataclass(frozen=True)
class AdversarialTraining(BallTraining):
    """Base of defenses that perturb each batch and train on the result.

    A subclass defines :meth:`perturb`, and :meth:`risk` if the objective is not the classification loss on
    those images.
    """

    @abstractmethod
    def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        """Adversarial images, float32 ``(N, 3, H, W)`` in [0, 1], without a graph."""

    def risk(
        self, classifier: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, context: Context
    ) -> Tensor:
        """The objective, a scalar."""
        return classification_loss(classifier, classifier(adversarial), labels, context.label_smoothing)

    def objective(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Objective:
        if self.softmax_only and getattr(classifier, "one_vs_rest", False):
            raise InvalidSettingError(
                f"defense '{self.spec}' got a classifier with a sigmoid for each class; expected a softmax"
            )
        if self.one_label and labels.is_floating_point():
            raise InvalidSettingError(
                f"defense '{self.spec}' got labels as probabilities; expected one class for each image"
            )
        adversarial = self.perturb(classifier, images, labels, context)
        return lambda: self.risk(classifier, images, adversarial, labels, context)


@dataclass(frozen=True)
class MultiStepTraining(AdversarialTraining):
    """Adversarial training whose images are made in several gradient steps inside the ball.

    Attributes:
        eps: radius of the ball, in units of the pixel range.
        steps: number of gradient steps for each image, at least 1.
        alpha: length of a step, in units of the pixel range; None for a quarter of eps under linf (2/255 for
            8/255), and 2 eps / steps under l2.
        norm: ``linf`` or ``l2``.
    """

    steps: int = 10
    alpha: float | None = None
    norm: str = "linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.steps >= 1, "steps", "1 or more")
        self.require(self.alpha is None or 0 < self.alpha < math.inf, "alpha", "more than 0")
        self.require(self.norm in NORMS, "norm", " or ".join(NORMS))

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel(self.norm, self.eps)

    def climb(
        self, classifier: nn.Module, ball: Ball, start: Tensor, loss: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Steepest ascent of a loss inside the ball; returns the final iterate.

        Args:
            classifier: the classifier, in the mode to use.
            ball: the allowed points.
            start: first iterate, float32 ``(N, 3, H, W)``.
            loss: maps logits ``(N, C)`` to a scalar.
        """
        default = self.eps / 4 if self.norm == "linf" else 2 * self.eps / self.steps
        alpha = default if self.alpha is None else self.alpha
        point = start
        for _ in range(self.steps):
            gradient = image_gradient(classifier, point, loss)
            point = ascent_step(ball, point, gradient, alpha)
        return point


def image_gradient(classifier: nn.Module, images: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of a loss of the logits with respect to the images; the weights get no gradient."""
    asked = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(classifier(asked)), asked)
    return gradient


@contextmanager
def eval_mode(classifier: nn.Module) -> Iterator[None]:
    """Put the classifier into eval mode inside; on exit, each module has its former mode."""
    modes = [(module, module.training) for module in classifier.modules()]
    classifier.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
