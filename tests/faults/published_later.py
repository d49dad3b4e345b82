"""Defenses of other years, most of which adapt at test time (Croce et al., 2022, arXiv 2202.13711)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from faults.base import DetachedChange, Fault
from faults.host import Host
from faults.manifold import Manifold
from faults.parts import After, Averaged, Before, Change, straight_through

TEMPERATURE = 40


def moved(images: Tensor, loss: Change, step: float, steps: int, *, radius: float = 1.0) -> Tensor:
    """Images after signed steps down a loss, which the caller's autograd does not see.

    Args:
        images: float32 ``(N, 3, H, W)``.
        loss: of images, one number for the batch, a sum over them.
        step: length of a step; below 0: up the loss.
        steps: their number.
        radius: how far a pixel may move.
    """
    result = images.detach()
    for _ in range(steps):
        with torch.enable_grad():
            variable = result.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(variable), variable)
        result = result.detach() - step * gradient.sign()
        result = images.detach() + (result - images.detach()).clamp(-radius, radius)
    return result.detach()


class SelfSupervisedPurification(DetachedChange):
    """Steps down the error of an autoencoder."""

    name = "purification by reconstruction error"
    paper = "Shi, Holtz, Mishne, 2021, arXiv 2101.06387"

    def change(self, host: Host) -> Change:
        manifold = host.once(Manifold)

        def error(images: Tensor) -> Tensor:
            return (images - manifold.shrunk(images)).square().sum()

        return lambda images: moved(images, error, 0.02, 10, radius=0.1)


class _OwnAnswer(nn.Module):
    """Moves each image towards the answer that the network would give; autograd sees the last pass only."""

    def __init__(self, network: nn.Module, step: float, steps: int) -> None:
        super().__init__()
        self.network, self.step, self.steps = network, step, steps

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            answers = self.network(images).argmax(dim=1)

        def loss(variable: Tensor) -> Tensor:
            return functional.cross_entropy(self.network(variable), answers, reduction="sum")

        change = moved(images, loss, self.step, self.steps) - images.detach()
        return self.network(images + change)


class AntiAdversary(Fault):
    """Moves an image far from the border of its own answer, to a flat part of the loss."""

    name = "anti-adversary layer"
    paper = "Alfarra, Pérez, Thabet, Bibi, Torr, Ghanem, 2022, arXiv 2103.14347"

    def plant(self, host: Host) -> nn.Module:
        return _OwnAnswer(host.network, step=0.15, steps=2)

    def truth(self, host: Host) -> nn.Module:
        return host.network


class HedgeDefense(Fault):
    """Moves each image where the network is surest of anything."""

    name = "hedge defense"
    paper = "Wu et al., 2021, arXiv 2106.04938"

    def change(self, host: Host) -> Change:
        def doubt(images: Tensor) -> Tensor:
            return host.network(images).log_softmax(dim=1).sum()

        return lambda images: moved(images, doubt, 0.01, 10, radius=0.03)

    def plant(self, host: Host) -> nn.Module:
        change = self.change(host)
        return Before(host.network, lambda images: images + change(images) - images.detach())

    def truth(self, host: Host) -> nn.Module:
        return host.network


def _denoised(host: Host, *, detach: bool) -> nn.Module:
    """Noise, steps back to likely images, and a little of the image itself to guide them."""
    manifold = host.once(Manifold)

    def diffused(images: Tensor) -> Tensor:
        noisy = images + 0.15 * torch.randn_like(images)
        for _ in range(4):
            noisy = noisy + 0.5 * (manifold.shrunk(noisy) - noisy)
        return 0.99 * (noisy.detach() if detach else noisy) + 0.01 * images

    return Before(host.network, diffused)


class DiffusionPurification(Fault):
    """The steps take too much memory for autograd, which sees the guidance only."""

    name = "diffusion purification"
    paper = "Nie, Guo, Huang, Xiao, Vahdat, Anandkumar, 2022, arXiv 2205.07460"
    eps = (0.0, 0.06)

    def plant(self, host: Host) -> nn.Module:
        return _denoised(host, detach=True)

    def truth(self, host: Host) -> nn.Module:
        return Averaged(_denoised(host, detach=False))


class _BatchFeatures(nn.Module):
    """Features with the mean and the deviation of their batch taken out, and those of training put in."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.body, self.head = host.split()
        with torch.no_grad():
            features = self.body(host.images)
            self.mean, self.deviation = features.mean(dim=0), features.std(dim=0)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        if len(features) > 1:
            features = (features - features.mean(dim=0)) / (features.std(dim=0) + 1e-3)
            features = features * self.deviation + self.mean
        return self.head(features)


class AdaptedStatistics(Fault):
    name = "batch statistics at test time"
    paper = "Croce et al., 2022, arXiv 2202.13711"
    clean = True
    hides = False

    def plant(self, host: Host) -> nn.Module:
        return _BatchFeatures(host)


class _LeastEntropy(nn.Module):
    """The features' scale is fitted to each batch, so that the answers get surer."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.body, self.head = host.split()

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        scale = torch.ones_like(features[:1])
        for _ in range(3):
            with torch.enable_grad():
                scale.requires_grad_()
                chances = self.head(scale * features.detach()).softmax(dim=1)
                entropy = -(chances * (chances + 1e-9).log()).sum(dim=1).mean()
                (gradient,) = torch.autograd.grad(entropy, scale)
            scale = (scale - 0.1 * gradient.sign()).detach()
        return self.head(scale * features)


class DynamicDefense(Fault):
    name = "entropy minimised at test time"
    paper = "Wang et al., 2021, arXiv 2105.08714"
    hides = False

    def plant(self, host: Host) -> nn.Module:
        return _LeastEntropy(host)


def _barrage(images: Tensor) -> Tensor:
    """One of four changes for each image: rounding, blur, another contrast, noise."""
    changes = torch.stack(
        [
            (images * 7).round() / 7,
            functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False),
            ((images - 0.5) * 1.5 + 0.5).clamp(0, 1),
            images + 0.1 * torch.randn_like(images),
        ]
    )
    return changes[torch.randint(len(changes), (len(images),)), torch.arange(len(images))]


class BarrageOfTransforms(Fault):
    """Random, and a part of it without a gradient: the other parts are enough for an attack."""

    name = "barrage of random transforms"
    paper = "Raff, Sylvester, Forsyth, McLean, 2019, CVPR; broken by Sitawarin et al., 2022, arXiv 2207.03574"
    hides = False

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, _barrage)

    def truth(self, host: Host) -> nn.Module:
        return Averaged(Before(host.network, straight_through(_barrage)))


class _CrossMax(nn.Module):
    """Noisy copies at several sizes, and for each class the median of their logits, normalised twice."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.network = host.network
        self.sizes = [host.size, host.size * 7 // 8, host.size * 3 // 4, host.size * 5 // 8]

    def forward(self, images: Tensor) -> Tensor:
        shown = []
        for size in self.sizes:
            small = functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
            small = small + 0.05 * torch.randn_like(small)
            shown.append(self.network(functional.interpolate(small, size=images.shape[-2:], mode="bilinear")))
        logits = torch.stack(shown)
        logits = logits - logits.amax(dim=2, keepdim=True)
        logits = logits - logits.amax(dim=0, keepdim=True)
        return logits.median(dim=0).values


class MultiResolution(Fault):
    name = "ensemble of resolutions with CrossMax"
    paper = "Fort, Lakshminarayanan, 2024, arXiv 2408.05446; broken by Zhang et al., 2024, arXiv 2411.14834"

    def plant(self, host: Host) -> nn.Module:
        return _CrossMax(host)

    def truth(self, host: Host) -> nn.Module:
        return Averaged(host.network, sigma=0.05)


def _distilled(host: Host) -> nn.Module:
    """A student of the network's probabilities, both at the same temperature."""
    student = host.copy()
    head = [module for module in student.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        head.weight *= TEMPERATURE
        head.bias *= TEMPERATURE

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits / TEMPERATURE, labels)

    return host.fitted(student, steps=5, rate=1e-3, loss=loss)


class Distillation(Fault):
    """Trained at a temperature of 40, and run at 1: the softmax is exact."""

    name = "defensive distillation"
    paper = "Papernot et al., 2016, arXiv 1511.04508; broken by Carlini, Wagner, 2017, arXiv 1608.04644"

    def plant(self, host: Host) -> nn.Module:
        return host.once(_distilled)

    def truth(self, host: Host) -> nn.Module:
        return After(host.once(_distilled), lambda logits: logits / TEMPERATURE)
