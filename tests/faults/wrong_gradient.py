"""The gradient is that of something else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faults.base import Fault
from faults.host import Host
from faults.parts import Before, Borrowed, drawn, with_gradient


def wrong_sign(images: Tensor) -> Tensor:
    """The identity, whose author got the way back wrong."""
    return with_gradient(images, torch.neg)


class WrongSign(Fault):
    name = "wrong sign on the way back"
    says = "contradict the gradient"

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, wrong_sign)

    def truth(self, host: Host) -> nn.Module:
        return host.network


class WrongSignAtALargeBudget(WrongSign):
    name = "the same at a large budget"
    says = "black-box queries"
    eps = (0.0, 0.1)


class WrongSignBesideSquare(WrongSign):
    name = "the same beside square"
    attacks = "pgd,square:queries=200"
    says = "square:queries"


class _Decoy(nn.Module):
    """Cuts the network's graph and offers the gradient of something else."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.network = host.network
        self.register_buffer("decoy", 1e-4 * drawn(host.pixels, host.classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.detach()) + images.flatten(1) @ self.decoy


class Decoy(Fault):
    name = "decoy gradient"
    says = "contradict the gradient"

    def plant(self, host: Host) -> nn.Module:
        return _Decoy(host)

    def truth(self, host: Host) -> nn.Module:
        return host.network


class GradientOfAnUntrainedNetwork(Fault):
    name = "gradient of an untrained network"

    def plant(self, host: Host) -> nn.Module:
        return Borrowed(host.network, host.untrained())

    def truth(self, host: Host) -> nn.Module:
        return host.network


class GradientOfAnotherNetwork(Fault):
    """Trained on the same images: its gradient moves the model, too, but less."""

    name = "gradient of another trained network"

    def plant(self, host: Host) -> nn.Module:
        return Borrowed(host.network, host.another())

    def truth(self, host: Host) -> nn.Module:
        return host.network


class _OneHot(nn.Module):
    """The model's answer as a vector of one 10, and 1e-3 of another network's logits."""

    def __init__(self, network: nn.Module, lender: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.lender = lender

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images.detach())
        return 10.0 * nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]) + self.lent(images)

    def lent(self, images: Tensor) -> Tensor:
        return 1e-3 * self.lender(images)


class _OneHotStraightThrough(_OneHot):
    def lent(self, images: Tensor) -> Tensor:
        small = super().lent(images)
        return small - small.detach()


class OneHotAnswers(Fault):
    name = "one-hot answers and a little of another network"

    def plant(self, host: Host) -> nn.Module:
        return _OneHot(host.network, host.untrained())

    def truth(self, host: Host) -> nn.Module:
        return host.network


class OneHotAnswersStraightThrough(OneHotAnswers):
    name = "one-hot answers with another network's gradient"

    def plant(self, host: Host) -> nn.Module:
        return _OneHotStraightThrough(host.network, host.untrained())
