"""A problem of ten classes that a network of 4,000 weights learns in a second."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

TOY_CLASSES = 10


@dataclass(frozen=True)
class Toy:
    """A small separable problem and a network that has learned it.

    Attributes:
        model: maps pixels in [0, 1] to logits ``(N, 10)``, in eval mode.
        images: float32 ``(N, 3, 16, 16)`` in [0, 1]; the model was not trained on them.
        labels: int64 ``(N,)``.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor


@cache
def toy_problem(count: int = 64) -> Toy:
    """The toy problem with this number of images, the same in each call; do not change it.

    Args:
        count: number of images.

    Returns:
        A trained model, and images and labels that it was not trained on.

    >>> toy = toy_problem(20)
    >>> toy.images.shape, toy.model(toy.images).shape
    (torch.Size([20, 3, 16, 16]), torch.Size([20, 10]))
    """
    return Toy(train_toy_model(), *draw_toy_images(count, seed=2))


def draw_toy_images(count: int, seed: int, size: int = 16) -> tuple[Tensor, Tensor]:
    """Images of ten classes; each class is a faint coarse pattern under noise, with some pixels at 0 and 1.

    Args:
        count: number of images.
        seed: seed of the noise.
        size: height and width in pixels.

    Returns:
        float32 ``(N, 3, size, size)`` in [0, 1] and labels int64 ``(N,)``.

    >>> images, labels = draw_toy_images(3, seed=0)
    >>> images.shape, labels.tolist()
    (torch.Size([3, 3, 16, 16]), [0, 1, 2])
    """
    patterns = torch.randn(TOY_CLASSES, 3, 4, 4, generator=torch.Generator().manual_seed(77))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % TOY_CLASSES
    coarse = functional.interpolate(patterns[labels], size=(size, size), mode="bilinear")
    noise = torch.randn(count, 3, size, size, generator=generator)
    return (0.5 + 0.1 * coarse + 0.15 * noise).clamp(0, 1), labels


def build_toy_model(seed: int = 0) -> nn.Module:
    """An untrained network of about 4,000 weights; strides and ReLUs give it a real network's gradients.

    Args:
        seed: seed of the weights.

    Returns:
        A module that maps ``(N, 3, 16, 16)`` in [0, 1] to logits ``(N, 10)``.

    >>> sum(weight.numel() for weight in build_toy_model().parameters())
    3962
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, TOY_CLASSES),
        )


def train_toy_model(seed: int = 0) -> nn.Module:
    """A network that classifies nearly all toy images correctly, in eval mode."""
    model = build_toy_model(seed)
    images, labels = draw_toy_images(320, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    with torch.enable_grad():
        for _ in range(60):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model.eval()
