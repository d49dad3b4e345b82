"""The answer follows from earlier calls."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faults.base import Fault
from faults.host import Host

ONCE_MORE = "when the same images were shown again"


class _Adapting(nn.Module):
    """Draws its images to a mean that follows all that it was shown so far."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.45))

    def forward(self, images: Tensor) -> Tensor:
        self.mean.lerp_(images.detach().mean(dim=(0, 2, 3), keepdim=True), 0.2)
        return self.network(images - self.mean + 0.5)


class AdaptsAsItAnswers(Fault):
    name = "adapts as it answers"
    hides = False
    says = ONCE_MORE
    clean = True

    def plant(self, host: Host) -> nn.Module:
        return _Adapting(host.network)


class _Tiring(nn.Module):
    """Answers at random from its fortieth call on; no tensor tells."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits = self.network(images)
        return logits if self.calls < 40 else logits.roll(1, dims=1)


class GivesUpAfterSomeCalls(Fault):
    name = "gives up after some calls"
    hides = False
    says = "on earlier calls"
    clean = True

    def plant(self, host: Host) -> nn.Module:
        return _Tiring(host.network)
