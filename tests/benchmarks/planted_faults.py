"""Faults that make a model look robust, or an attack look weak, planted on purpose."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import TOY_CLASSES, draw_toy_images

from robustbench_tin import attacks


class Before(nn.Module):
    """A network behind something that is done to its images."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.change(images))


class After(Before):
    """A network before something that is done to its logits."""

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.network(images))


class WrongSign(torch.autograd.Function):
    """The identity, whose author got the way back wrong."""

    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return -gradient


class SignFeatures(nn.Module):
    """A layer whose activations are signs, below a linear layer fitted by least squares."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*list(copy.deepcopy(network).children())[:3])
        images, labels = draw_toy_images(1_280, seed=1)
        with torch.no_grad():
            targets = functional.one_hot(labels, TOY_CLASSES).float()
            self.top = nn.Parameter(torch.linalg.lstsq(self._features(images), targets).solution)

    def forward(self, images: Tensor) -> Tensor:
        return self._features(images) @ self.top

    def _features(self, images: Tensor) -> Tensor:
        signs = self.body(images).sign().flatten(1)
        return torch.cat([signs, torch.ones_like(signs[:, :1])], dim=1)


class Decoy(nn.Module):
    """Cuts the network's graph and offers the gradient of something else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        weights = torch.randn(3 * 16 * 16, TOY_CLASSES, generator=torch.Generator().manual_seed(0))
        self.register_buffer("decoy", 1e-4 * weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.detach()) + images.flatten(1) @ self.decoy


class ForgotEval(nn.Module):
    """Dropout that stays on at test time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(functional.dropout(images, 0.2, training=True))


class Adapting(nn.Module):
    """Draws its images to a mean that follows all that it was shown so far."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.45))

    def forward(self, images: Tensor) -> Tensor:
        self.mean.lerp_(images.detach().mean(dim=(0, 2, 3), keepdim=True), 0.2)
        return self.network(images - self.mean + 0.5)


class Tiring(nn.Module):
    """Answers at random from its fortieth call on; no tensor tells."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits = self.network(images)
        return logits if self.calls < 40 else logits.roll(1, dims=1)


def centred(images: Tensor) -> Tensor:
    """As batch norm without running statistics, or left in train mode, does it."""
    return images - images.mean(dim=(0, 2, 3), keepdim=True) + 0.5


def centred_and_noisy(images: Tensor) -> Tensor:
    """Both: neither may hide the other."""
    return noisy(centred(images))


def beside_the_first(images: Tensor) -> Tensor:
    """The first image of a batch shines through the others."""
    return 0.9 * images + 0.1 * images[:1]


def quantised(images: Tensor) -> Tensor:
    """Eight levels a value."""
    return (images * 7).round() / 7


def noisy(images: Tensor) -> Tensor:
    """Other noise in each pass."""
    return images + 0.05 * torch.randn_like(images)


def detect_and_shift(images: Tensor) -> Tensor:
    """Knows images that no file can hold, and moves those back to a coarse grid."""
    off_grid = ((images * 255 - (images * 255).round()).abs() > 1e-3).flatten(1).any(dim=1)
    return torch.where(off_grid.view(-1, 1, 1, 1), quantised(images), images)


def rippled(images: Tensor) -> Tensor:
    """Almost the identity, with a slope of -0.1 at every value that eight bits can hold, most others up."""
    waves = 2 * math.pi * 255
    return images - 1.1 * torch.sin(waves * images) / waves


def shattered(images: Tensor) -> Tensor:
    """Almost the identity, with a slope between -29 and 31 that changes within 1/1000."""
    return images + 30 * torch.sin(6_000 * images + 1) / 6_000


@attacks.register("returns-clean")
@dataclass(frozen=True, kw_only=True)
class ReturnsClean(attacks.Attack):
    """Forgets to hand back what it found."""

    def run(self, oracle, labels, ball, generator):
        oracle.gradient(ball.images, labels)
        return ball.images


@attacks.register("does-nothing")
@dataclass(frozen=True, kw_only=True)
class DoesNothing(attacks.Attack):
    """Does not even look at the model."""

    def run(self, oracle, labels, ball, generator):
        return ball.images


@attacks.register("wrong-scale")
@dataclass(frozen=True, kw_only=True)
class WrongScale(attacks.Attack):
    """Takes eps for a number of 255ths once more, as a bridge between two conventions may."""

    def run(self, oracle, labels, ball, generator):
        moved = ball.images
        for _ in range(10):
            step = ball.eps / 255 * ball.direction(oracle.gradient(moved, labels))
            moved = ball.project(moved + step)
        return moved


@attacks.register("gives-up")
@dataclass(frozen=True, kw_only=True)
class GivesUp(attacks.Attack):
    """Leaves its loop too early where the budget is large."""

    def run(self, oracle, labels, ball, generator):
        moved = ball.images
        for _ in range(8 if ball.eps < 0.025 else 1):
            moved = ball.project(moved + 0.005 * ball.direction(oracle.gradient(moved, labels)))
        return moved


@attacks.register("downhill")
@dataclass(frozen=True, kw_only=True)
class Downhill(attacks.Attack):
    """Makes the model surer of the truth."""

    def run(self, oracle, labels, ball, generator):
        moved = ball.images
        for _ in range(10):
            moved = ball.project(moved - ball.eps / 4 * ball.direction(oracle.gradient(moved, labels)))
        return moved


@dataclass(frozen=True)
class Fault:
    """What is wrong, and what has to be said about it.

    Attributes:
        name: of the fault.
        plant: makes the faulty model of an honest one.
        attacks: that the model is measured under.
        flagged: the attack whose figures must not be trusted.
        says: a part of the reason.
        eps: budgets; the largest must be flagged.
        clean: whether the clean figure is not to be trusted either.
    """

    name: str
    plant: Callable[[nn.Module], nn.Module]
    attacks: str = "fgsm,pgd"
    flagged: str = "pgd"
    says: str = ""
    eps: tuple[float, ...] = (0.0, 0.01, 0.03)
    clean: bool = False


def unchanged(network: nn.Module) -> nn.Module:
    """The fault is the attack's."""
    return network


def before(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], nn.Module]:
    return lambda network: Before(network, change)


def after(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], nn.Module]:
    return lambda network: After(network, change)


ENDS_EARLY = "pgd:alpha=0.002,criterion=top1,random_start=False,steps=20"

FAULTS = [
    Fault("saturated logits", after(lambda logits: 1e4 * logits), says="gradient is zero"),
    Fault("percentages", after(lambda logits: 100 * (30 * logits).softmax(dim=1)), says="gradient is zero"),
    Fault("quantised input", before(quantised), says="gradient is zero"),
    Fault("sign activations", SignFeatures, says="gradient is zero"),
    Fault("noise at test time", before(noisy), says="eot"),
    Fault("dropout at test time", ForgotEval, says="eot"),
    Fault("detects and shifts", before(detect_and_shift), says="gradient is zero"),
    Fault("wrong sign on the way back", before(WrongSign.apply), says="survive"),
    Fault("the same at a large budget", before(WrongSign.apply), says="black-box queries", eps=(0.0, 0.1)),
    Fault("the same beside square", before(WrongSign.apply), "pgd,square:queries=200", says="square:queries"),
    Fault("decoy gradient", Decoy, says="survive"),
    Fault("shattered gradients", before(shattered), says="survive"),
    Fault("good for a step only", before(rippled), flagged="fgsm", says="believe PGD", eps=(0.0, 0.06)),
    Fault("returns the clean image", unchanged, "returns-clean,fgsm", "returns-clean", "that fgsm left"),
    Fault("does nothing", unchanged, "does-nothing", "does-nothing", "never asked"),
    Fault("wrong scale", unchanged, "wrong-scale", "wrong-scale", "check that it works"),
    Fault("gives up", unchanged, "gives-up", "gives-up", "accuracy rises", eps=(0.0, 0.02, 0.03)),
    Fault("downhill", unchanged, "downhill", "downhill", "check that it works"),
    Fault("short steps", unchanged, "pgd:alpha=0.0005", "pgd:alpha=0.0005", "more steps"),
    Fault("few steps", unchanged, "pgd:alpha=0.003,steps=2", "pgd:alpha=0.003,steps=2", "more steps"),
    Fault("statistics of the batch", before(centred), says="other images of their batch", clean=True),
    Fault("and random", before(centred_and_noisy), says="other images of their batch", clean=True),
    Fault("random, and statistics of the batch", before(centred_and_noisy), says="eot"),
    Fault("order of the batch", before(beside_the_first), says="other images of their batch", clean=True),
    Fault("adapts as it answers", Adapting, says="when they were shown once more", clean=True),
    Fault("gives up after some calls", Tiring, says="when they were shown once more", clean=True),
    Fault("ends too early", unchanged, ENDS_EARLY, ENDS_EARLY, "last tenth", eps=(0.0, 0.06)),
]
