"""The model draws at test time, so that one gradient is not the gradient of the measured model."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn
from torch.nn import functional

from faults.base import Fault
from faults.host import Host
from faults.parts import After, Averaged, Before, Borrowed

AVERAGE = "eot"


def noisy(images: Tensor, sigma: float = 0.05) -> Tensor:
    """Other noise in each pass."""
    return images + sigma * torch.randn_like(images)


class NoiseAtTestTime(Fault):
    name = "noise at test time"
    says = AVERAGE
    hides = False

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, noisy)

    def truth(self, host: Host) -> nn.Module:
        return Averaged(self.plant(host))


class DropoutAtTestTime(Fault):
    """Left in train mode."""

    name = "dropout at test time"
    says = AVERAGE
    hides = False

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, lambda images: functional.dropout(images, 0.2, training=True))

    def truth(self, host: Host) -> nn.Module:
        return Averaged(self.plant(host))


class MaskedClass(Fault):
    """One logit far below all others: beside it, the effect of noise looks like rounding."""

    name = "noise, and one class masked"
    hides = False

    def plant(self, host: Host) -> nn.Module:
        def mask(logits: Tensor) -> Tensor:
            return logits.index_fill(1, torch.tensor([logits.shape[1] - 1], device=logits.device), -1e4)

        return After(Before(host.network, noisy), mask)

    def truth(self, host: Host) -> nn.Module:
        return Averaged(self.plant(host))


class RandomAndWrong(Fault):
    """Averaging removes the noise, and not that the gradient is another network's."""

    name = "noise and another network's gradient, eot=2"
    attacks = "pgd"
    eps = (0.0, 0.03)
    eot = 2

    def plant(self, host: Host) -> nn.Module:
        return Borrowed(Before(host.network, noisy), Before(host.untrained(), noisy))

    def truth(self, host: Host) -> nn.Module:
        return Averaged(Before(host.network, noisy))


class RandomAndWrongLongAveraged(RandomAndWrong):
    name = "noise and another network's gradient, eot=20"
    attacks = flagged = "pgd:steps=5"
    eot = 20


def _content_noise(images: Tensor) -> Tensor:
    """Noise whose seed is the image: the same at each look, another a hair's breadth away."""
    noise = [
        torch.randn(image.shape, generator=torch.Generator().manual_seed(zlib.crc32(image.numpy().tobytes())))
        for image in images.detach().cpu()
    ]
    return torch.stack(noise).to(images.device)


class SeededByTheImage(Fault):
    """Seems to draw nothing. An attack that stops at a success keeps a lucky draw."""

    name = "noise that follows from the image"
    adaptive = "pgd:criterion=top1,steps=40"

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, lambda images: images + 0.15 * _content_noise(images))

    def truth(self, host: Host) -> nn.Module:
        return self.plant(host)
