"""Gaussian blur before the classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.defenses.base import Defense
from robustbench_tin.defenses.input_transform import InputTransform, trimmed

# Reach of the kernel in each direction, in standard deviations; less than 0.3 % lies beyond.
_REACH = 3


@dataclass(frozen=True)
class Blur(Defense):
    """Blur each image with a Gaussian before classification; edge pixels are repeated beyond the border.

    The local smoothing of Xu, Evans and Qi, 2018, "Feature Squeezing: Detecting Adversarial Examples in
    Deep Neural Networks", arXiv 1704.01155, with a Gaussian instead of their median: its gradient is exact,
    so no attack has to approximate it.

    Attributes:
        sigma: standard deviation in pixels, more than 0, at most 16.
    """

    name: ClassVar[str] = "blur"

    sigma: float = 1.0

    def __post_init__(self) -> None:
        self.require(0 < self.sigma <= 16, "sigma", "more than 0, at most 16 pixels")

    def wrap(self, classifier: nn.Module) -> nn.Module:
        return _SeesBlurred(classifier, self.sigma)


class _SeesBlurred(InputTransform):
    kernel: Tensor

    def __init__(self, classifier: nn.Module, sigma: float) -> None:
        super().__init__(classifier)
        reach = math.ceil(_REACH * sigma)
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
        weights = torch.exp(-(offsets**2) / (2 * sigma**2))
        device = next((parameter.device for parameter in classifier.parameters()), None)
        # Not persistent: it follows from the setting. Not a layer: a search in bfloat16 would round its
        # weights.
        kernel = (weights / weights.sum()).float().to(device)
        self.register_buffer("kernel", kernel, persistent=False)

    def transform(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        reach = len(self.kernel) // 2
        rows = images.reshape(count * channels, 1, height, width)
        padded = functional.pad(rows, [reach] * 4, mode="replicate")
        across = functional.conv2d(padded, self.kernel.view(1, 1, 1, -1))
        return trimmed(functional.conv2d(across, self.kernel.view(1, 1, -1, 1)).view(images.shape))
