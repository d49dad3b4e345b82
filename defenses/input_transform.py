"""What input-transform defenses share: a transform before the classifier, and straight-through gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

Transform = Callable[[Tensor], Tensor]


class InputTransform(nn.Module, ABC):
    """A classifier that sees its images through a transform.

    Attacks go through the transform by default. Where it has no useful gradient its author gives it a
    straight-through one (:func:`straight_through`), since a defense that only hides its gradient is none.

    Args:
        classifier: float32 pixels in [0, 1] to logits.
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


def straight_through(images: Tensor, transform: Transform) -> Tensor:
    """``transform(images)`` forward, the identity backward, inside the pixel box; outside it no gradient.

    It is the backward pass differentiable approximation with the identity, for transforms that stay near
    their input: Athalye, Carlini and Wagner, 2018, "Obfuscated Gradients Give a False Sense of Security",
    arXiv 1802.00420.

    Args:
        images: float32 ``(N, C, H, W)``; values outside [0, 1] are cut off first.
        transform: keeps the shape; may be anything.
    """
    return cast("Tensor", _StraightThrough.apply(images, transform))


def trimmed(images: Tensor) -> Tensor:
    """Images that rounding took out of the pixel box by a hair, brought back without cutting the gradient."""
    return images + (images.clamp(0, 1) - images).detach()


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, transform: Transform) -> Tensor:
        ctx.save_for_backward(images)
        return transform(images.clamp(0, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (images,) = ctx.saved_tensors
        # By hand: in some releases of torch the gradient of clamp is 0 on the bounds, where many pixels lie.
        return gradients[0] * ((images >= 0) & (images <= 1)), None
