"""CutMix: a rectangle of each training image is replaced by that part of another image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_tin.data.augmentation import draw_beta, soft_labels
from robustbench_tin.defenses.base import Defense
from robustbench_tin.training.context import Context


@dataclass(frozen=True)
class CutMix(Defense):
    """Train on images that contain a rectangle of another image; labels are mixed by covered area.

    Yun, Han, Oh, Chun, Choe and Yoo, 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with
    Localizable Features", arXiv 1905.04899. One rectangle is drawn for the batch; each image gets the
    rectangle of the image before it.

    Attributes:
        alpha: parameter of the Beta(alpha, alpha) distribution of the remaining share of the area, more than
            0.
        probability: probability that a batch is mixed, more than 0, at most 1.
    """

    name: ClassVar[str] = "cutmix"
    mixes_labels: ClassVar[bool] = True

    alpha: float = 1.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        self.require(0 < self.alpha < math.inf, "alpha", "more than 0")
        self.require(0 < self.probability <= 1, "probability", "more than 0, at most 1")

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        dice = context.host_generator(self.name)
        chance, down, across = torch.rand(3, generator=dice, dtype=torch.float32).tolist()
        if chance >= self.probability:
            return images, labels
        side = math.sqrt(1 - draw_beta(self.alpha, dice))
        height, width = images.shape[-2:]
        top, bottom = _span(height, side, down)
        left, right = _span(width, side, across)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images.roll(1, 0)[:, :, top:bottom, left:right]
        covered = (bottom - top) * (right - left) / (height * width)
        soft = soft_labels(labels, context.num_classes)
        return mixed, soft.lerp(soft.roll(1, 0), covered)


def _span(length: int, part: float, centre: float) -> tuple[int, int]:
    """First and last pixel of a stretch around a centre, cut at the edges."""
    half, middle = length * part / 2, length * centre
    return max(0, round(middle - half)), min(length, round(middle + half))
