"""A part of the gradient is cut away, or noise drowns it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from faults.base import Fault
from faults.host import Host
from faults.parts import Before, drawn, with_gradient


class GradientChanged(Fault):
    """The network, and another gradient of its images."""

    @abstractmethod
    def rule(self, gradient: Tensor) -> Tensor:
        """The gradient that the attack gets instead of ``gradient``, ``(N, C, H, W)``."""

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, lambda images: with_gradient(images, self.rule))

    def truth(self, host: Host) -> nn.Module:
        return host.network


class ThreeQuartersOfTheRows(GradientChanged):
    name = "gradient of one image in four"

    def rule(self, gradient: Tensor) -> Tensor:
        return gradient * (torch.arange(len(gradient), device=gradient.device) % 4 == 3).view(-1, 1, 1, 1)


class AllRowsButOne(GradientChanged):
    name = "gradient of the first image only"

    def rule(self, gradient: Tensor) -> Tensor:
        return gradient * (torch.arange(len(gradient), device=gradient.device) == 0).view(-1, 1, 1, 1)


class TwoOfThreeChannels(GradientChanged):
    name = "gradient of one channel"

    def rule(self, gradient: Tensor) -> Tensor:
        return gradient * gradient.new_tensor([0.0, 1.0, 0.0]).view(1, -1, 1, 1)


class Checkerboard(GradientChanged):
    name = "gradient cut in a checkerboard"

    def rule(self, gradient: Tensor) -> Tensor:
        rows, columns = (torch.arange(side, device=gradient.device) for side in gradient.shape[-2:])
        return gradient * ((rows[:, None] + columns) % 2)


def low_frequencies(images: Tensor, share: float) -> Tensor:
    """Images without waves above a share of the highest frequency, in each direction."""
    spectrum = torch.fft.rfft2(images)
    vertical = torch.fft.fftfreq(images.shape[-2], device=images.device).abs()[:, None] <= share / 2
    horizontal = torch.fft.rfftfreq(images.shape[-1], device=images.device) <= share / 2
    return torch.fft.irfft2(spectrum * (vertical & horizontal), s=images.shape[-2:])


class LowFrequenciesCut(GradientChanged):
    name = "gradient without low frequencies"

    def rule(self, gradient: Tensor) -> Tensor:
        return gradient - low_frequencies(gradient, 0.5)


class HighFrequenciesCut(GradientChanged):
    name = "gradient without high frequencies"

    def rule(self, gradient: Tensor) -> Tensor:
        return low_frequencies(gradient, 0.15)


class NoiseAsLargeAsTheGradient(GradientChanged):
    """The same noise for each image and at each step, so that no average removes it."""

    name = "fixed noise as large as the gradient"
    ratio = 1.0

    def rule(self, gradient: Tensor) -> Tensor:
        noise = drawn(*gradient.shape[1:]).to(gradient)
        length = gradient.flatten(1).norm(dim=1) / noise.norm()
        return gradient + self.ratio * length.view(-1, 1, 1, 1) * noise


class NoiseLargerThanTheGradient(NoiseAsLargeAsTheGradient):
    name = "fixed noise several times the gradient"
    ratio = 4.0
