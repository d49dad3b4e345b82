"""The slope changes within a fraction of the budget, so that it says nothing about the next step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from faults.base import Fault
from faults.host import Host
from faults.parts import Before, drawn


def _rippled(images: Tensor) -> Tensor:
    """Almost the identity, with a slope of -0.1 at every value that eight bits can hold, most others up."""
    waves = 2 * math.pi * 255
    return images - 1.1 * torch.sin(waves * images) / waves


class GoodForAStepOnly(Fault):
    name = "good for a step only"
    flagged = "fgsm"
    says = "rely on PGD"
    eps = (0.0, 0.06)

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, _rippled)

    def truth(self, host: Host) -> nn.Module:
        return host.network


def _shattered(images: Tensor) -> Tensor:
    """Almost the identity, with a slope between -29 and 31 that changes within 1/1000."""
    return images + 30 * torch.sin(6_000 * images + 1) / 6_000


class Shattered(Fault):
    name = "shattered gradients"
    says = "survive"

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, _shattered)

    def truth(self, host: Host) -> nn.Module:
        return host.network


class _Ripples(nn.Module):
    """Waves along one random direction of the images for each output, added to it."""

    def __init__(self, host: Host, outputs: int, height: float, slope: float) -> None:
        super().__init__()
        directions = drawn(host.pixels, outputs, seed=3)
        self.register_buffer("directions", directions / directions.norm(dim=0))
        self.height, self.pace = height, slope / height

    def forward(self, images: Tensor) -> Tensor:
        return self.height * torch.sin(self.pace * (images.flatten(1) @ self.directions))


class _RippledLogits(nn.Module):
    def __init__(self, host: Host) -> None:
        super().__init__()
        self.network = host.network
        self.ripples = _Ripples(host, host.classes, height=0.05, slope=500.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + self.ripples(images)


class RippledLogits(Fault):
    """Too small to change an answer, with a slope far above the network's own."""

    name = "ripples on the logits"

    def plant(self, host: Host) -> nn.Module:
        return _RippledLogits(host)

    def truth(self, host: Host) -> nn.Module:
        return host.network


class RippledInput(Fault):
    """One wave along a direction of the images moves all pixels along it, a little and steeply."""

    name = "ripples on the input"

    def plant(self, host: Host) -> nn.Module:
        ripples = _Ripples(host, 1, height=0.05, slope=500.0)

        def change(images: Tensor) -> Tensor:
            return images + (ripples(images) @ ripples.directions.T).view_as(images)

        return Before(host.network, change)

    def truth(self, host: Host) -> nn.Module:
        return host.network
