"""Random erasing: noise replaces a rectangle of some training images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_tin.defenses.base import Defense
from robustbench_tin.training.context import Context

# The erased rectangle's share of the area, and its width over height, as in the paper.
_AREA = (0.02, 0.4)
_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class RandomErasing(Defense):
    """Replace a random rectangle of randomly chosen training images by random pixels.

    Zhong, Zheng, Kang, Li and Yang, 2017, "Random Erasing Data Augmentation", arXiv 1708.04896. Each image
    has its own random rectangle, cut to the image if it is longer.

    Attributes:
        probability: probability that an image loses a rectangle, more than 0, at most 1.
    """

    name: ClassVar[str] = "random-erasing"

    probability: float = 0.5

    def __post_init__(self) -> None:
        self.require(0 < self.probability <= 1, "probability", "more than 0, at most 1")

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        chance, area, aspect, down, across = torch.rand(
            5, len(images), 1, generator=context.generator, device=images.device, dtype=torch.float32
        )
        area = (_AREA[0] + (_AREA[1] - _AREA[0]) * area) * height * width
        low, high = (math.log(bound) for bound in _ASPECT)
        aspect = (low + (high - low) * aspect).exp()
        rows = _stretch((area / aspect).sqrt().round().clamp(1, height), height, down)
        columns = _stretch((area * aspect).sqrt().round().clamp(1, width), width, across)
        erased = rows.unsqueeze(2) & columns.unsqueeze(1) & (chance < self.probability).unsqueeze(2)
        noise = torch.rand(
            images.shape, generator=context.generator, device=images.device, dtype=torch.float32
        )
        return torch.where(erased.unsqueeze(1), noise, images), labels


def _stretch(length: Tensor, whole: int, place: Tensor) -> Tensor:
    """True for the pixels of an axis in a stretch of this length, bool ``(N, whole)``."""
    start = (place * (whole - length + 1)).floor()
    pixels = torch.arange(whole, device=length.device)
    return (pixels >= start) & (pixels < start + length)
