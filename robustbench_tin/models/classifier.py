"""The classifier: the form in which training, attacks and tables use a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class Classifier(nn.Module):
    """A network that maps pixels to logits; resizing and normalisation happen inside and are differentiable.

    Attacks therefore act on the data set's own pixels, and an eps means the same for every backbone.

    Args:
        network: maps normalised images ``(N, 3, input_size, input_size)`` to logits ``(N, C)``.
        backbone: its name, for records.
        num_classes: number of classes C.
        image_size: height and width of the data set's images in pixels.
        input_size: height and width of the network's input in pixels.
        mean: mean per channel that normalisation subtracts, in units of the pixel range [0, 1].
        std: standard deviation per channel that it divides by, in the same units.
        interpolation: resizing method: ``nearest``, ``bilinear``, ``bicubic`` or ``area``.
        one_vs_rest: training treats each logit as a separate sigmoid, one class against the rest. Attacks and
            top-k use the logits in either case.
        notes: lines to show the user once (about a replaced head, for example).
    """

    # The images may lie on another device than the network, if the network's lacks float64.
    moves_images = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        backbone: str,
        num_classes: int,
        image_size: int,
        input_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        notes: tuple[str, ...] = (),
        interpolation: str = "bilinear",
        one_vs_rest: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.backbone = backbone
        self.num_classes = num_classes
        self.image_size = image_size
        self.input_size = input_size
        self.notes = notes
        self.interpolation = interpolation
        self.one_vs_rest = one_vs_rest
        # Not persistent: they follow from the backbone, so a weights file holds the network only.
        self.register_buffer(
            "mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images.

        Args:
            images: floating point ``(N, 3, H, W)`` in [0, 1], of any size.

        Returns:
            float32 ``(N, C)``, also under autocast.

        Raises:
            TypeError: for integer images, which have another range.
        """
        if not images.is_floating_point():
            raise TypeError(f"images are {images.dtype}; expected float in [0, 1]")
        logits = cast("Tensor", self.network(self.prepare(images.to(self.mean.device))))
        return logits.to(images.device, torch.float32)

    def prepare(self, images: Tensor) -> Tensor:
        """The network's input: images resized to ``input_size`` and normalised."""
        height, width = images.shape[-2:]
        size = (self.input_size, self.input_size)
        if (height, width) == size:
            return self._normalise(images)
        if min(height, width) < self.input_size:
            # Interpolation weights sum to one, so normalising first is the same, on fewer pixels.
            return self._resize(self._normalise(images), size, antialias=max(height, width) > self.input_size)
        return self._normalise(self._resize(images, size, antialias=True))

    def _normalise(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def _resize(self, images: Tensor, size: tuple[int, int], *, antialias: bool) -> Tensor:
        if self.interpolation in ("bilinear", "bicubic"):
            return functional.interpolate(
                images, size=size, mode=self.interpolation, align_corners=False, antialias=antialias
            )
        # torch's "nearest" is off by half a pixel, which it keeps for compatibility with old weights.
        mode = "nearest-exact" if self.interpolation == "nearest" else self.interpolation
        return functional.interpolate(images, size=size, mode=mode)
