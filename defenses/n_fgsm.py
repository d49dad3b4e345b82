"""Noise-FGSM adversarial training: more noise before the step, and no projection after it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_tin.defenses.adversarial_training import AdversarialTraining, image_gradient
from robustbench_tin.training.context import Context
from robustbench_tin.training.objective import classification_loss


@dataclass(frozen=True)
class NoiseFGSM(AdversarialTraining):
    """Train on images with noise wider than the ball plus one FGSM step, clipped only to the pixel box.

    de Jorge, Bibi, Volpi, Sanyal, Torr, Rogez and Dokania, 2022, "Make Some Noise: Reliable and Efficient
    Single-Step Adversarial Training", arXiv 2202.01181. The change may reach (noise + 1) × eps, which
    prevents catastrophic overfitting. As in the paper, the step is computed in train mode.

    Attributes:
        eps: radius of the ball trained against and length of the step, in units of the pixel range.
        noise: largest absolute value of the noise, as a multiple of eps, 0 or more.
    """

    name: ClassVar[str] = "n-fgsm"
    relative_cost: ClassVar[float] = 1.7
    single_step: ClassVar[bool] = True

    noise: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.noise < math.inf, "noise", "0 or more")

    def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        drawn = torch.rand(
            images.shape, generator=context.generator, device=images.device, dtype=torch.float32
        )
        noisy = (images + (2 * drawn - 1) * self.noise * self.eps).clamp(0, 1)
        gradient = image_gradient(classifier, noisy, partial(classification_loss, classifier, labels=labels))
        return (noisy + self.eps * gradient.sign()).clamp(0, 1)
