"""Augmentation of a batch on its device, with separate random numbers for each image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def random_affine(
    images: Tensor,
    generator: torch.Generator,
    *,
    rotation: float = 0.0,
    zoom: float = 0.0,
    shift: float = 0.0,
    shear: float = 0.0,
    flip: bool = False,
) -> Tensor:
    """Rotate, zoom, shift, shear and mirror each image by random amounts, in one resampling.

    Args:
        images: float32 ``(N, C, H, W)`` in [0, 1].
        generator: source of random numbers, on the images' device.
        rotation: largest rotation in either direction, in degrees.
        zoom: largest change of scale: 0.1 draws from [0.9, 1.1].
        shift: largest shift along each axis, as a fraction of the image's side.
        shear: largest slant of the vertical in either direction, in degrees, below 90.
        flip: mirror each image left to right with probability 1/2.

    Returns:
        float32 ``(N, C, H, W)`` in [0, 1]; the image mirrored at its edges fills the borders.
    """
    if not (rotation or zoom or shift or shear):
        # Mirroring alone needs no resampling, so it is exact.
        return _flipped(images, generator) if flip else images
    count, device = len(images), images.device

    def draw(limit: float) -> Tensor:
        return (2 * torch.rand(count, generator=generator, device=device, dtype=torch.float32) - 1) * limit

    angle, scale = draw(math.radians(rotation)), 1 / (1 + draw(zoom))
    # affine_grid's images are 2 wide, and its matrix maps a pixel's target to its source.
    x_shift, y_shift = draw(2 * shift), draw(2 * shift)
    mirror = torch.ones(count, device=device, dtype=torch.float32)
    if flip:
        drawn = torch.rand(count, generator=generator, device=device, dtype=torch.float32)
        mirror = torch.where(drawn < 0.5, -mirror, mirror)
    # Drawn only if it is needed, so that the other draws are the same without it.
    slant = (
        draw(math.radians(shear)).tan() if shear else torch.zeros(count, device=device, dtype=torch.float32)
    )
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    first = torch.stack([mirror * cosine, slant * cosine - sine, x_shift], dim=1)
    second = torch.stack([mirror * sine, slant * sine + cosine, y_shift], dim=1)
    grid = functional.affine_grid(
        torch.stack([first, second], dim=1), list(images.shape), align_corners=False
    )
    moved = functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return moved.clamp_(0, 1)


def soft_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as probabilities, float32 ``(N, C)``: one-hot, or unchanged if they are probabilities.

    Args:
        labels: int64 ``(N,)``, or probabilities float32 ``(N, C)``.
        num_classes: number of classes C.

    >>> soft_labels(torch.tensor([2, 0]), 3)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    return labels if labels.ndim == 2 else functional.one_hot(labels, num_classes).float()


def draw_beta(alpha: float, generator: torch.Generator) -> float:
    """A number in [0, 1] from the Beta(alpha, alpha) distribution, from a generator on the CPU."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(len(images), generator=generator, device=images.device, dtype=torch.float32) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)
