"""Base of input-transform defenses: a transform before the classifier, and straight-through gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

Transform = Callable[[Tensor], Tensor]

# Standard deviation of the noise that softens rounding, in units of the rounding step.
_SOFTNESS = 0.25


class InputTransform(nn.Module, ABC):
    """A classifier that receives its images through a transform.

    Attacks go through the transform by default. If it has no useful gradient, its author gives it a
    straight-through one (:func:`straight_through`), because a defense that only hides its gradient is no
    defense.

    Args:
        classifier: maps float32 pixels in [0, 1] to logits.
    """

    substitutes_gradient: ClassVar[bool] = False
    """True if attacks get a substitute gradient on purpose instead of the exact one.

    The trust checks look for this attribute on every module of a model. They then measure how well the
    substitute predicts the logits from image to image, because differences over a short distance contradict
    any substitute.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    @abstractmethod
    def transform(self, images: Tensor) -> Tensor:
        """The classifier's input, float32 ``(N, C, H, W)`` in [0, 1], of the same shape."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of the transformed images."""
        # A search in lower precision applies to the network, never to the transform, which it would change.
        with torch.autocast(images.device.type, enabled=False):
            seen = self.transform(images.float())
        return cast("Tensor", self.classifier(seen))


def straight_through(images: Tensor, transform: Transform, stand_in: Transform | None = None) -> Tensor:
    """``transform(images)`` forward, the gradient of a substitute backward; zero gradient outside [0, 1].

    This is backward pass differentiable approximation (BPDA), for transforms that stay near their input:
    Athalye, Carlini and Wagner, 2018, "Obfuscated Gradients Give a False Sense of Security", arXiv
    1802.00420.

    Args:
        images: float32 ``(N, C, H, W)``; values outside [0, 1] are clipped first.
        transform: any function that keeps the shape.
        stand_in: a function that keeps the shape and has a gradient; None for the identity.

    Returns:
        float32 ``(N, C, H, W)``.

    >>> images = torch.tensor([0.2, 0.8], requires_grad=True)
    >>> straight_through(images, torch.round)
    tensor([0., 1.], grad_fn=<_StraightThroughBackward>)
    >>> straight_through(images, torch.round).sum().backward()
    >>> images.grad
    tensor([1., 1.])
    """
    return cast("Tensor", _StraightThrough.apply(images, transform, stand_in))


def softly_rounded(values: Tensor) -> Tensor:
    """``values.round()``, with the average slope of rounding under small Gaussian noise.

    The slope is large if a value is about to change; elsewhere it is small, but never 0. With the
    identity's slope, an attack would spend its budget on values that cannot change within it.

    Args:
        values: float32 of any shape, in units of the rounding step.

    >>> values = torch.tensor([0.1, 0.5], requires_grad=True)
    >>> softly_rounded(values).sum().backward()
    >>> values.grad
    tensor([0.5333, 1.5963])
    """
    rounded = values.detach().round()
    away = values.detach() - rounded
    below, above = (torch.exp(-(((away - edge) / _SOFTNESS) ** 2) / 2) for edge in (-0.5, 0.5))
    slope = (below + above) / (_SOFTNESS * math.sqrt(2 * math.pi))
    return rounded + slope * (values - values.detach())


def trimmed(images: Tensor) -> Tensor:
    """Images with rounding errors outside the pixel box moved back, without clipping the gradient."""
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
        # Computed here: in some releases of torch, the gradient of clamp is 0 on the bounds, and many
        # pixels are there.
        return gradient * ((images >= 0) & (images <= 1)), None, None
