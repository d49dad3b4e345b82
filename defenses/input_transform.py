"""What input-transform defenses share: a transform before the classifier, and straight-through gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

Transform = Callable[[Tensor], Tensor]

# Deviation of the noise that rounding is softened by, in units of its step.
_SOFTNESS = 0.25


class InputTransform(nn.Module, ABC):
    """A classifier that sees its images through a transform.

    Attacks go through the transform by default. Where it has no useful gradient its author gives it a
    straight-through one (:func:`straight_through`), since a defense that only hides its gradient is none.

    Args:
        classifier: float32 pixels in [0, 1] to logits.
    """

    substitutes_gradient: ClassVar[bool] = False
    """Whether the gradient that attacks see is a stand-in on purpose, not that of the answers.

    The trust checks look for this attribute on every module of a model. They then measure how well the
    stand-in explains the answers from image to image: differences over a short distance contradict any.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    @abstractmethod
    def transform(self, images: Tensor) -> Tensor:
        """What the classifier sees, float32 ``(N, C, H, W)`` in [0, 1], of the same shape."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of the transformed images."""
        # A search in lower precision lowers the network's, never the transform's: it would be another one.
        with torch.autocast(images.device.type, enabled=False):
            seen = self.transform(images.float())
        return cast("Tensor", self.classifier(seen))


def straight_through(images: Tensor, transform: Transform, stand_in: Transform | None = None) -> Tensor:
    """``transform(images)`` forward, the gradient of a stand-in backward, inside the pixel box; none outside.

    It is the backward pass differentiable approximation, for transforms that stay near their input: Athalye,
    Carlini and Wagner, 2018, "Obfuscated Gradients Give a False Sense of Security", arXiv 1802.00420.

    Args:
        images: float32 ``(N, C, H, W)``; values outside [0, 1] are cut off first.
        transform: keeps the shape; may be anything.
        stand_in: keeps the shape and has a gradient; None: the identity.
    """
    return cast("Tensor", _StraightThrough.apply(images, transform, stand_in))


def softly_rounded(values: Tensor) -> Tensor:
    """``values.round()``, with the slope that rounding has on average under a little Gaussian noise.

    It is steep where a value is about to change and small, but never 0, elsewhere. The slope of the identity
    spends a budget on values that no change so small reaches.
    """
    rounded = values.detach().round()
    away = values.detach() - rounded
    below, above = (torch.exp(-(((away - edge) / _SOFTNESS) ** 2) / 2) for edge in (-0.5, 0.5))
    slope = (below + above) / (_SOFTNESS * math.sqrt(2 * math.pi))
    return rounded + slope * (values - values.detach())


def trimmed(images: Tensor) -> Tensor:
    """Images that rounding took out of the pixel box by a hair, brought back without cutting the gradient."""
    return images + (images.clamp(0, 1) - images).detach()


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, transform: Transform, stand_in: Transform | None) -> Tensor:
        ctx.save_for_backward(images)
        ctx.stand_in = stand_in
        return transform(images.clamp(0, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (images,) = ctx.saved_tensors
        (gradient,) = gradients
        if ctx.stand_in is not None:
            with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
                inside = images.detach().clamp(0, 1).requires_grad_()
                (gradient,) = torch.autograd.grad(ctx.stand_in(inside), inside, gradient)
        # By hand: in some releases of torch the gradient of clamp is 0 on the bounds, where many pixels lie.
        return gradient * ((images >= 0) & (images <= 1)), None, None
