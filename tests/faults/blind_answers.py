"""Models by an author who had not seen the trust checks: gates, ripples, views and caches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from faults.base import Fault
from faults.host import Host
from faults.parts import After, Before, borrow, straight_through

Answer = Callable[[Tensor], Tensor]


class _Answers(nn.Module):
    """A model by one function of its images."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(images)


def gap(logits: Tensor) -> Tensor:
    """The highest logit less the second, ``(N, 1)``."""
    first, second = logits.topk(2, dim=1).values.split(1, dim=1)
    return first - second


class _OfTheHost(Fault):
    """The truth is the network itself."""

    def truth(self, host: Host) -> nn.Module:
        return host.network


class HardVotes(_OfTheHost):
    """Votes of networks decide; a small member that sees a thumbnail is differentiable."""

    name = "hard votes"

    def plant(self, host: Host) -> nn.Module:
        network, other = host.network, host.another()

        def voted(images: Tensor) -> Tensor:
            with torch.no_grad():
                logits = network(images)
                votes = 2 * functional.one_hot(logits.argmax(dim=1), logits.shape[1]).float()
                votes = votes + 0.9 * functional.one_hot(other(images).argmax(dim=1), logits.shape[1])
            thumbnail = functional.interpolate(functional.avg_pool2d(images, 4), size=images.shape[-2:])
            return 4 * votes + 0.1 * other(thumbnail).log_softmax(dim=1)

        return _Answers(voted)


class SafeLogarithm(_OfTheHost):
    """Probabilities are clamped before the logarithm: a sure answer has no gradient."""

    name = "probabilities clamped before the logarithm"

    def plant(self, host: Host) -> nn.Module:
        def safe(logits: Tensor) -> Tensor:
            return logits.softmax(dim=1).clamp(0.02, 0.6).log() + 1e-3 * logits.detach()

        return After(host.network, safe)


class TemperedByItsMargin(_OfTheHost):
    """The temperature grows with the margin: the gradient is exact, and the loss falls towards a mistake."""

    name = "temperature that follows the margin"

    def plant(self, host: Host) -> nn.Module:
        return After(host.network, lambda logits: logits / (1 + 6 * gap(logits) ** 2))


class DecoyClass(_OfTheHost):
    """A second class that never wins follows another network and soaks up the loss; the gradient is exact."""

    name = "second class that never wins"

    def plant(self, host: Host) -> nn.Module:
        network, other = host.network, host.another()

        def answers(images: Tensor) -> Tensor:
            logits = network(images)
            highest, at = logits.max(dim=1, keepdim=True)
            wave = torch.sin(4 * other(images.flip(2)).pow(2).mean(dim=1, keepdim=True))
            decoy = -(0.05 + 0.25 * (1 - wave))
            return 2 * torch.scatter(logits - highest, 1, (at + 1) % logits.shape[1], decoy)

        return _Answers(answers)


def rippled(images: Tensor) -> Tensor:
    """Images with a ripple of one level of 255, steeper than the identity."""
    return images + torch.sin(20 * 255 * images + 1) / 255


class RippleOfOneLevel(Fault):
    name = "ripple of one level on the pixels"

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, rippled)

    def truth(self, host: Host) -> nn.Module:
        return Before(host.network, straight_through(rippled))


class ErrorFeedback(_OfTheHost):
    """Quantised logits, with the rounding error fed back with the wrong sign: stairs that slope down."""

    name = "error feedback of the wrong sign"

    def plant(self, host: Host) -> nn.Module:
        def fed_back(logits: Tensor) -> Tensor:
            stairs = (2 * logits).round() / 2
            return stairs - 0.5 * (logits - stairs)

        return After(host.network, fed_back)


class _Remembered:
    """Images and their logits; copies of the model share them."""

    def __init__(self) -> None:
        self.images: Tensor | None = None
        self.logits: Tensor | None = None

    def __deepcopy__(self, memo: object) -> _Remembered:
        return self


class NearDuplicates(_OfTheHost):
    """Images close to one that was seen get its answer from a cache; the gradient is the network's own."""

    name = "cache of near duplicates"
    hides = False

    def plant(self, host: Host) -> nn.Module:
        cache, radius = _Remembered(), 20 / 255

        def cached(images: Tensor) -> Tensor:
            logits, flat = host.network(images), images.detach().flatten(1)
            if cache.images is None or cache.logits is None:
                cache.images, cache.logits = flat, logits.detach()
                return logits
            distance, at = torch.cdist(flat, cache.images, p=float("inf")).min(dim=1)
            known = distance <= radius
            answers = torch.where(known[:, None], borrow(cache.logits[at], logits), logits)
            cache.images = torch.cat([cache.images, flat[~known]])
            cache.logits = torch.cat([cache.logits, logits.detach()[~known]])
            return answers

        return _Answers(cached)


class GridGate(Fault):
    """Honest for images that 8 bits can hold; others pass coarsely and without a gradient."""

    name = "gate for the 8-bit grid"

    def plant(self, host: Host) -> nn.Module:
        def gated(images: Tensor) -> Tensor:
            levels = 255 * images.detach()
            held = ((levels - levels.round()).abs().flatten(1).amax(dim=1) < 0.02).view(-1, 1, 1, 1)
            coarse = (24 * images.detach()).round() / 24
            return torch.where(held, images, coarse)

        return Before(host.network, gated)

    def truth(self, host: Host) -> nn.Module:
        return Before(host.network, straight_through(lambda images: (24 * images).round() / 24))


class OtherWeightsForGradients(_OfTheHost):
    """Other weights and a flip answer while gradients are taken."""

    name = "other weights while gradients are taken"

    def plant(self, host: Host) -> nn.Module:
        network, other = host.network, host.another()

        def answers(images: Tensor) -> Tensor:
            if torch.is_grad_enabled() and images.requires_grad:
                return other(images.flip(3))
            return network(images)

        return _Answers(answers)


class FrozenViews(Fault):
    """The logits of three views are constants; only their weights are differentiable."""

    name = "attention over frozen views"

    @staticmethod
    def views(host: Host, images: Tensor) -> Tensor:
        smooth = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return torch.stack([host.network(view) for view in (images, (images + smooth) / 2, images)], dim=1)

    @staticmethod
    def weighed(views: Tensor, images: Tensor) -> Tensor:
        keys = functional.adaptive_avg_pool2d(images, 4).flatten(1)
        query = torch.randn(keys.shape[1], 3, generator=torch.Generator().manual_seed(0))
        return ((keys @ query / 7).softmax(dim=1).unsqueeze(2) * views).sum(dim=1)

    def plant(self, host: Host) -> nn.Module:
        return _Answers(lambda images: self.weighed(self.views(host, images).detach(), images))

    def truth(self, host: Host) -> nn.Module:
        return _Answers(lambda images: self.weighed(self.views(host, images), images))
