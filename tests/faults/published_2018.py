"""Defenses that Athalye, Carlini and Wagner, 2018, arXiv 1802.00420, broke; small versions of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from faults.base import DetachedChange, Fault
from faults.host import Host
from faults.manifold import Manifold
from faults.parts import Averaged, Before, Change, borrow, straight_through


class _Thermometer(nn.Module):
    """Each value as the levels that it exceeds, and a layer of 1 × 1 that feeds them to a network."""

    def __init__(self, network: nn.Module, levels: int = 8) -> None:
        super().__init__()
        self.network = network
        self.mix = nn.Conv2d(3 * levels, 3, 1)
        with torch.no_grad():
            self.mix.weight.zero_()
            self.mix.bias.zero_()
            for channel in range(3):
                self.mix.weight[channel, channel * levels : (channel + 1) * levels] = 1 / levels
        self.register_buffer("marks", (torch.arange(levels) + 0.5) / levels)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.mix(self.encode(images)))

    def encode(self, images: Tensor) -> Tensor:
        return (images.unsqueeze(2) > self.marks.view(-1, 1, 1)).float().flatten(1, 2)


class _SoftThermometer(nn.Module):
    """The same with the gradient of an encoding that rises over the width of a level."""

    def __init__(self, hard: _Thermometer) -> None:
        super().__init__()
        self.hard = hard

    def forward(self, images: Tensor) -> Tensor:
        marks = self.hard.marks.view(-1, 1, 1)
        soft = ((images.unsqueeze(2) - marks) * len(marks) + 0.5).clamp(0, 1).flatten(1, 2)
        return self.hard.network(self.hard.mix(borrow(self.hard.encode(images), soft)))


def _fitted_thermometer(host: Host) -> _Thermometer:
    return host.fitted(_Thermometer(host.copy()), steps=15, rate=1e-3)


class Thermometer(Fault):
    name = "thermometer encoding"
    paper = "Buckman, Roy, Raffel, Goodfellow, 2018, ICLR"
    attacks = flagged = DetachedChange.flagged
    eps = DetachedChange.eps

    def plant(self, host: Host) -> nn.Module:
        return host.once(_fitted_thermometer)

    def truth(self, host: Host) -> nn.Module:
        return _SoftThermometer(host.once(_fitted_thermometer))


def _cosines(side: int = 8) -> Tensor:
    """The matrix of the cosine transform of ``side`` values."""
    places = torch.arange(side)
    waves = (math.pi / side * (places + 0.5) * places[:, None]).cos() * (2 / side) ** 0.5
    waves[0] /= 2**0.5
    return waves


def compressed(images: Tensor, step: float = 0.12) -> Tensor:
    """Blocks of 8 × 8 pixels with rounded cosine coefficients, coarser the higher their frequency.

    The sides of the images are multiples of 8.
    """
    cosines = _cosines().to(images)
    steps = step * (1 + (torch.arange(8)[:, None] + torch.arange(8)) / 7).to(images)
    blocks = images.unfold(2, 8, 8).unfold(3, 8, 8)
    rounded = steps * (cosines @ blocks @ cosines.T / steps).round()
    return (cosines.T @ rounded @ cosines).permute(0, 1, 2, 4, 3, 5).reshape(images.shape)


class JPEG(Fault):
    """Its core, the rounding of cosine coefficients, as an engineer writes it in torch."""

    name = "JPEG compression"
    paper = "Guo, Rana, Cisse, van der Maaten, 2018, arXiv 1711.00117"

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, compressed)

    def truth(self, host: Host) -> nn.Module:
        return Before(host.network, straight_through(compressed))


def _less_varied(images: Tensor, weight: float = 0.03, steps: int = 8) -> Tensor:
    """Pixels dropped at random, and images of a small total variation through those that are left."""
    kept = (torch.rand_like(images[:, :1]) < 0.7).float()
    result = images
    for _ in range(steps):
        slope = kept * (result - images)
        for side, edge in ((2, (0, 0, 1, 1)), (3, (1, 1))):
            steep = result.diff(dim=side)
            flow = functional.pad(steep / (steep**2 + 1e-3).sqrt(), edge)
            slope = slope - weight * flow.diff(dim=side)
        result = result - 0.3 * slope
    return result


class TotalVariation(Fault):
    name = "total variation minimisation"
    paper = JPEG.paper
    hides = False

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, _less_varied)

    def truth(self, host: Host) -> nn.Module:
        return Averaged(self.plant(host))


def _patches(images: Tensor, side: int) -> Tensor:
    """All patches beside each other, ``(N, patches, values)``."""
    return functional.unfold(images, side, stride=side).transpose(1, 2)


class Quilting(Fault):
    """Each patch gives way to the nearest of those of training images; a sharp softmax chooses it."""

    name = "image quilting"
    paper = JPEG.paper

    def quilt(self, host: Host) -> Change:
        """From images to images made of patches of the training images."""
        side = max(2, host.size // 16)
        bank = _patches(host.images, side).flatten(0, 1)
        bank = bank[torch.randperm(len(bank), generator=torch.Generator().manual_seed(0))[:256]]

        def quilted(images: Tensor) -> Tensor:
            patches = _patches(images, side)
            # Minus the squared distance, without the term that is the same for each patch of the bank.
            nearness = 2 * patches @ bank.T - bank.square().sum(dim=1)
            nearest = (1e4 * nearness).softmax(dim=-1) @ bank
            return functional.fold(nearest.transpose(1, 2), images.shape[-2:], side, stride=side)

        return quilted

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, self.quilt(host))

    def truth(self, host: Host) -> nn.Module:
        return Before(host.network, straight_through(self.quilt(host)))


class _Pruned(nn.Module):
    """A ReLU whose outputs are drawn with chances that follow from their size, and scaled up for it."""

    def forward(self, values: Tensor) -> Tensor:
        values = functional.relu(values)
        flat = values.flatten(1)
        chances = flat / flat.sum(dim=1, keepdim=True).clamp_min(1e-12)
        kept = 1 - (1 - chances) ** (2 * flat.shape[1])
        drawn = torch.rand_like(kept) < kept
        return (flat * drawn / kept.clamp_min(1e-6)).view_as(values)


class ActivationPruning(Fault):
    name = "stochastic activation pruning"
    paper = "Dhillon et al., 2018, arXiv 1803.01442"
    hides = False

    def plant(self, host: Host) -> nn.Module:
        return host.activated(_Pruned).eval()

    def truth(self, host: Host) -> nn.Module:
        return Averaged(self.plant(host))


def resized_and_padded(images: Tensor) -> Tensor:
    """Shrunk to a random size and put at a random place, the same for the batch."""
    size = images.shape[-1]
    side = int(torch.randint(size * 7 // 8, size + 1, ()))
    left, top = (int(torch.randint(size - side + 1, ())) for _ in range(2))
    small = functional.interpolate(images, size=(side, side), mode="bilinear")
    return functional.pad(small, (left, size - side - left, top, size - side - top), value=0.5)


class ResizeAndPad(Fault):
    name = "random resize and pad"
    paper = "Xie, Wang, Zhang, Ren, Yuille, 2018, arXiv 1711.01991"
    hides = False

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, resized_and_padded)

    def truth(self, host: Host) -> nn.Module:
        return Averaged(self.plant(host))


class Projection(DetachedChange):
    """Images from a small generator, found by steps from a random code that autograd does not see."""

    name = "projection on a generator"
    paper = "Samangouei, Kabkab, Chellappa, 2018, arXiv 1805.06605"
    eps = (0.0, 0.06)

    def change(self, host: Host) -> Change:
        return host.once(Manifold).projected

    def truth(self, host: Host) -> nn.Module:
        """The steps have a gradient if it is not cut."""
        return Before(host.network, self.change(host))


class PixelDefend(Fault):
    """Steps of a fixed length towards images that are more likely; the sign has no gradient."""

    name = "steps up a density"
    paper = "Song, Kim, Nowozin, Ermon, Kushman, 2018, arXiv 1710.10766"

    def purified(self, host: Host, sign: Change) -> nn.Module:
        """The network behind such steps."""
        manifold = host.once(Manifold)

        def change(images: Tensor) -> Tensor:
            result = images
            for _ in range(20):
                result = result + 0.02 * sign(manifold.shrunk(result) - result)
            return images + (result - images).clamp(-0.2, 0.2)

        return Before(host.network, change)

    def plant(self, host: Host) -> nn.Module:
        return self.purified(host, torch.sign)

    def truth(self, host: Host) -> nn.Module:
        return self.purified(host, lambda values: borrow(values.sign(), (values / 0.02).tanh()))
