"""Models that an attack may meet: half in train mode, with wrong outputs, or changed by each call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from robustbench_tin.testing.toy import TOY_CLASSES

Spoil = Callable[[Tensor], object]


def build_mixed_model() -> nn.Module:
    """A model with batch norm and dropout, partly in train mode, one frozen kernel, one gradient kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=4, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(6 * 16, TOY_CLASSES),
        )
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    (*_, bias) = model.parameters()
    bias.grad = torch.full_like(bias, 0.25)
    return model


class Broken(nn.Module):
    """A model that fails in a given way, with one layer in train mode.

    Args:
        network: maps pixels in [0, 1] to logits; it is copied.
        spoil: maps its logits to the model's output; it may raise.
    """

    def __init__(self, network: nn.Module, spoil: Spoil) -> None:
        super().__init__()
        self.inner = copy.deepcopy(network)
        self.dropout = nn.Dropout()
        self.spoil = spoil

    def forward(self, images: Tensor) -> object:
        """The spoiled logits."""
        return self.spoil(self.inner(images))


def crash(logits: Tensor) -> Tensor:
    """Raise an error of two lines."""
    raise ValueError("two lines\nof trouble")


def detach(logits: Tensor) -> Tensor:
    """Cut the graph: the model has no gradients."""
    return logits.detach()


FAILURES: Mapping[str, tuple[Spoil, str]] = {
    "raises": (crash, "ValueError: two lines of trouble"),
    "returns NaN": (lambda logits: logits * float("nan"), "not finite"),
    "returns infinity": (lambda logits: logits + float("inf"), "not finite"),
    "has no gradients": (detach, "no gradient"),
    "returns a scalar": (lambda logits: logits.mean(), "returned ()"),
    "returns a row less": (lambda logits: logits[:-1], "returned"),
    "returns three dimensions": (lambda logits: logits[..., None], "returned"),
    "returns a tuple": (lambda logits: (logits,), "returned tuple"),
}
"""Failures of a model, each with a part of the message that must follow."""


class FailsAtSize(nn.Module):
    """A model whose logits are NaN unless a batch has a certain size.

    Args:
        network: maps pixels in [0, 1] to logits.
        size: number of images for which it returns the logits.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        # Not a submodule, so that no cheaper copy of the model is made.
        self._networks, self._size = [network], size

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)``."""
        logits: Tensor = self._networks[0](images)
        return logits if len(images) == self._size else logits * float("nan")


class Normalising(nn.Module):
    """A network behind a normalisation, in place or not.

    Args:
        network: maps normalised pixels to logits.
        in_place: True if the model writes into the images that it is given.
    """

    def __init__(self, network: nn.Module, *, in_place: bool) -> None:
        super().__init__()
        self.network, self.in_place = network, in_place

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)``."""
        if self.in_place:
            images[:, 0].mul_(2)
            images.sub_(0.5).div_(0.25).clamp_(-4, 4)
        else:
            images = ((torch.cat([2 * images[:, :1], images[:, 1:]], dim=1) - 0.5) / 0.25).clamp(-4, 4)
        logits: Tensor = self.network(images)
        return logits


class Adapting(nn.Module):
    """A model with batch norm that stays in train mode, and a buffer that follows the images.

    Args:
        network: maps pixels to logits; it is copied.
    """

    mean: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))

    def train(self, mode: bool = True) -> Adapting:
        """Set the mode of all modules except the batch norm, which stays in train mode."""
        super().train(mode)
        self.norm.train()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)``; each call changes the buffers."""
        seen = images.detach().mean(dim=(0, 2, 3), keepdim=True)
        self.mean = 0.9 * self.mean + 0.1 * seen
        logits: Tensor = self.network(self.norm(images - self.mean))
        return logits
