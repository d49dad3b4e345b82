"""Counts of the forward and backward passes of an attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from robustbench_tin.attacks.acceleration.variants import ModelVariant


@dataclass
class PassCounts:
    """Passes so far, summed over the images.

    Attributes:
        forward: forward passes.
        backward: backward passes.
        by_variants: those of both kinds through a variant other than the model.
        on_variant: called with the images, float32 ``(N, C, H, W)``, of each forward pass through such a
            variant.
    """

    forward: int = 0
    backward: int = 0
    by_variants: int = 0
    on_variant: Callable[[Tensor], None] | None = None

    def add_forward(self, variant: ModelVariant, images: Tensor) -> None:
        """Count a forward pass of these images."""
        self.forward += len(images)
        if not variant.is_model:
            self.by_variants += len(images)
            if self.on_variant is not None:
                self.on_variant(images.detach())

    def add_backward(self, variant: ModelVariant, images: int) -> None:
        """Count a backward pass of this number of images."""
        self.backward += images
        if not variant.is_model:
            self.by_variants += images
