"""mixup: each training image is blended with another one, and so are their labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_tin.data.augmentation import draw_beta, soft_labels
from robustbench_tin.defenses.base import Defense
from robustbench_tin.training.context import Context


@dataclass(frozen=True)
class Mixup(Defense):
    """Train on blends of two images; the target is the same blend of their labels.

    Zhang, Cisse, Dauphin and Lopez-Paz, 2017, "mixup: Beyond Empirical Risk Minimization", arXiv 1710.09412.
    One share is drawn for the batch; each image is blended with the image before it.

    Attributes:
        alpha: parameter of the Beta(alpha, alpha) distribution of an image's share, more than 0.
    """

    name: ClassVar[str] = "mixup"
    mixes_labels: ClassVar[bool] = True

    alpha: float = 0.2

    def __post_init__(self) -> None:
        self.require(0 < self.alpha < math.inf, "alpha", "more than 0")

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        share = draw_beta(self.alpha, context.host_generator(self.name))
        soft = soft_labels(labels, context.num_classes)
        return images.lerp(images.roll(1, 0), 1 - share), soft.lerp(soft.roll(1, 0), 1 - share)
