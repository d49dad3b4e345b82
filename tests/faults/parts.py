"""Building blocks of faults: a change before or behind a network, and gradients other than the true one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Change = Callable[[Tensor], Tensor]


class Before(nn.Module):
    """A network behind something that is done to its images."""

    def __init__(self, network: nn.Module, change: Change) -> None:
        super().__init__()
        self.network = network
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.change(images))


class After(Before):
    """A network before something that is done to its logits."""

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.network(images))


class Borrowed(nn.Module):
    """The logits of one network with the gradients of another."""

    def __init__(self, network: nn.Module, lender: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.lender = lender

    def forward(self, images: Tensor) -> Tensor:
        return borrow(self.network(images.detach()), self.lender(images))


class Averaged(nn.Module):
    """The mean logits of a network over several passes, each on images with noise of its own.

    The truth of a model that is random at test time, or, with ``sigma``, of one whose slope changes within
    that distance (expectation over transformations; Athalye et al., 2018, arXiv 1707.07397).
    """

    def __init__(self, network: nn.Module, copies: int = 10, sigma: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.copies = copies
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        passes = [self.network(images + self.sigma * torch.randn_like(images)) for _ in range(self.copies)]
        return torch.stack(passes).mean(dim=0)


class _Backward(torch.autograd.Function):
    """The identity with a rule for its gradient."""

    @staticmethod
    def forward(context: Any, values: Tensor, rule: Change) -> Tensor:
        context.rule = rule
        return values.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return context.rule(gradient), None


def with_gradient(values: Tensor, rule: Change) -> Tensor:
    """The values themselves; on the way back the rule makes another gradient of theirs."""
    return _Backward.apply(values, rule)


def borrow(values: Tensor, lender: Tensor) -> Tensor:
    """The one's values with the other's gradient."""
    return values.detach() + lender - lender.detach()


def straight_through(change: Change) -> Change:
    """The change with the identity's gradient (BPDA; Athalye et al., 2018, arXiv 1802.00420)."""
    return lambda images: borrow(change(images.detach()), images)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers of a fixed seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
