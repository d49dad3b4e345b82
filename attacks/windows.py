"""The changes that the Square attack draws: each row of a batch in a window of its own size and place.

All of them are those of Andriushchenko, Croce, Flammarion and Hein, 2020, arXiv 1912.00049.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# The smallest window in which the l2 pattern still has two sides.
_LEAST_L2_SIDE = 3
_TILES = 5
_TINY = 1e-12


def first_stripes(images: Tensor, generator: torch.Generator) -> Tensor:
    """Vertical stripes one pixel wide, each channel at 1 or -1, shaped as the images."""
    count, channels, _, width = images.shape
    return _signs((count, channels, 1, width), images, generator).expand_as(images)


def first_tiles(images: Tensor, generator: torch.Generator) -> Tensor:
    """A centred grid of five by five patterns of random sign and direction, of length 1 an image."""
    count, channels, height, width = images.shape
    side = max(min(height, width) // _TILES, 1)
    rows, columns = min(height // side, _TILES), min(width // side, _TILES)
    top, left = (height - side * rows) // 2, (width - side * columns) // 2
    change = torch.zeros_like(images)
    for row in range(rows):
        for column in range(columns):
            tile = _patterns(side, count, images, generator) * _signs(
                (count, channels, 1, 1), images, generator
            )
            y, x = top + row * side, left + column * side
            change[:, :, y : y + side, x : x + side] = tile
    return change / _lengths(change)


class SquareWindows:
    """A random square for each row.

    Args:
        images: ``(N, C, H, W)``, for their shape and device.
        shares: what part of an image's pixels the square covers, ``(N,)``; at most its shorter side long.
        generator: the source of randomness.
    """

    def __init__(self, images: Tensor, shares: Tensor, generator: torch.Generator) -> None:
        self._count, self._channels, self._height, self._width = images.shape
        self._like = images
        self._generator = generator
        self._sides = (shares * self._height * self._width).sqrt().round().long()

    def repainted(self, points: Tensor, step: float) -> Tensor:
        """The points with each channel of the square moved by the step, up or down."""
        sides = self._sides.clamp(1, min(self._height, self._width))
        top, left = self._places(sides)
        inside = self._spans(top, sides, self._height).unsqueeze(2) & self._spans(
            left, sides, self._width
        ).unsqueeze(1)
        signs = _signs((self._count, self._channels, 1, 1), self._like, self._generator)
        return points + step * signs * inside.unsqueeze(1)

    def rebuilt(self, changes: Tensor, eps: float) -> Tensor:
        """The changes with the length of two squares, and what eps leaves, gathered in one of them."""
        sides = self._sides.clamp(min=_LEAST_L2_SIDE)
        sides = (sides + (sides % 2 == 0)).clamp(max=min(self._height, self._width))
        rebuilt = changes.clone()
        # Windows of one size at a time: a batch holds few, and indexing needs them alike.
        for side in sorted(set(sides.tolist())):
            rows = (sides == side).nonzero().squeeze(1)
            rebuilt[rows] = self._rebuilt_alike(changes[rows], side, eps)
        return rebuilt

    def _rebuilt_alike(self, changes: Tensor, side: int, eps: float) -> Tensor:
        count = len(changes)
        sides = torch.full((count,), side, device=changes.device)
        gets, gives = (_window(*self._places(sides), side) for _ in range(2))
        row = torch.arange(count, device=changes.device).view(-1, 1, 1, 1)
        channel = torch.arange(self._channels, device=changes.device).view(1, -1, 1, 1)
        emptied = changes.clone()
        emptied[row, channel, *gets] = 0
        emptied[row, channel, *gives] = 0
        unused = (eps**2 - _squares(changes).sum(dim=1, keepdim=True)).clamp(min=0)
        available = _squares(changes) - _squares(emptied) + unused / self._channels
        old = changes[row, channel, *gets]
        old = old / (_squares(old).sqrt() + _TINY)
        signs = _signs((count, self._channels, 1, 1), changes, self._generator)
        new = _patterns(side, count, changes, self._generator) * signs + old
        emptied[row, channel, *gets] = new / (_squares(new).sqrt() + _TINY) * available.clamp(min=0).sqrt()
        return emptied

    def _places(self, sides: Tensor) -> tuple[Tensor, Tensor]:
        """The upper left corner of each square, uniformly among those where it fits, ``(N,)`` twice."""
        top, left = (
            (
                torch.rand(len(sides), generator=self._generator, device=sides.device, dtype=torch.float32)
                * (whole - sides + 1)
            )
            .long()
            .minimum(whole - sides)
            for whole in (self._height, self._width)
        )
        return top, left

    def _spans(self, start: Tensor, sides: Tensor, whole: int) -> Tensor:
        """Which of so many rows or columns each square covers, bool ``(N, whole)``."""
        at = torch.arange(whole, device=start.device)
        return (at >= start.unsqueeze(1)) & (at < (start + sides).unsqueeze(1))


def _window(top: Tensor, left: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Indices of each window's pixels, to go with a row's and a channel's."""
    along = torch.arange(side, device=top.device)
    return (top.view(-1, 1) + along).view(-1, 1, side, 1), (left.view(-1, 1) + along).view(-1, 1, 1, side)


def _squares(changes: Tensor) -> Tensor:
    """The sum of squares of each channel, ``(N, C, 1, 1)``."""
    return (changes**2).sum(dim=(2, 3), keepdim=True)


def _lengths(changes: Tensor) -> Tensor:
    """Euclidean lengths over the last three dimensions, or the two there are."""
    lengths: Tensor = torch.linalg.vector_norm(
        changes, dim=tuple(range(-min(changes.ndim, 3), 0)), keepdim=True
    )
    return lengths


def _signs(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(0, 2, shape, generator=generator, device=like.device).to(like.dtype) - 1


def _patterns(side: int, count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """The l2 pattern of length 1, upright or on its side at random, ``(N, 1, side, side)``."""
    pattern = _pattern(side).to(like.device)
    turned = torch.randint(0, 2, (count, 1, 1, 1), generator=generator, device=like.device).bool()
    return torch.where(turned, pattern.T, pattern)


@lru_cache
def _pattern(side: int) -> Tensor:
    """A hill above a valley, ``(side, side)``: values fall off from the middle of either half."""
    upper = side // 2
    both = torch.cat([_hill(upper, side), -_hill(side - upper, side)])
    return both / _lengths(both)


def _hill(height: int, width: int) -> Tensor:
    """Nested squares around the middle, each lifting what is in it, of length 1."""
    middle = height // 2, width // 2
    reach = max(middle) + 1
    lifts = 1 / torch.arange(1, reach + 1, dtype=torch.float32) ** 2
    heights = lifts.flip(0).cumsum(0).flip(0)
    away_y = (torch.arange(height) - middle[0]).abs().view(-1, 1)
    away_x = (torch.arange(width) - middle[1]).abs().view(1, -1)
    hill = heights[torch.maximum(away_y, away_x)]
    return hill / _lengths(hill) if height else hill
