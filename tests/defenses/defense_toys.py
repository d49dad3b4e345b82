"""Parts that the tests of adversarial training share: a context, and models that remember or normalise."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from toys import TOY_CLASSES

from robustbench_tin.training.context import Context


def context_of(seed: int, **settings: object) -> Context:
    generator = torch.Generator().manual_seed(seed)
    return Context(generator, torch.device("cpu"), TOY_CLASSES, epochs=1, note=lambda line: None, **settings)


class Fed(nn.Module):
    """Keeps the images that it was shown, and in which mode."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.shown: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images.detach().clone())
        self.modes.append(self.inner.training)
        return self.inner(images)


def build_normalised_model() -> nn.Module:
    """A toy network with batch norm, whose answers depend on its mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, TOY_CLASSES),
        )
