"""The model's logits of the clean images, kept if an attack queries the model there anyway."""

from __future__ import annotations

from torch import Tensor


class NotedLogits:
    """The model's logits of one batch of images.

    An attack that starts at the clean images computes their logits, so the clean measurement needs no passes
    of its own.

    Attributes:
        logits: float32 ``(N, C)``; None if the model was not queried at these images.
    """

    def __init__(self) -> None:
        self._images: Tensor | None = None
        self.logits: Tensor | None = None

    def watch(self, images: Tensor) -> None:
        """Keep the logits of exactly these images, if :meth:`offer` gets them."""
        self._images, self.logits = images, None

    def offer(self, images: Tensor, logits: Tensor) -> None:
        """Keep the logits if the images lie in the same memory as the watched ones."""
        if self._images is not None and _are_same(images, self._images):
            self.logits = logits


def _are_same(images: Tensor, noted: Tensor) -> bool:
    return (
        images.data_ptr() == noted.data_ptr()
        and images.shape == noted.shape
        and images.stride() == noted.stride()
    )
