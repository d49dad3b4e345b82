"""Square: random search with square-shaped changes, which needs only logits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.attacks.engine.restarts import IterativeWithRestarts
from robustbench_tin.attacks.engine.state import AttackInputs, AttackState, ModelOutput
from robustbench_tin.runtime import is_asynchronous

# After these numbers of queries out of 10,000, the share of the image that a change covers is halved.
_HALVED_AFTER = (10, 50, 200, 500, 1_000, 2_000, 4_000, 6_000, 8_000)
_SCHEDULE = 10_000


@dataclass(frozen=True, kw_only=True)
class Square(IterativeWithRestarts):
    """Square: repaint a random square, keep it if the margin got worse for the model; no gradients.

    Andriushchenko, Croce, Flammarion and Hein, 2020, "Square Attack: a query-efficient black-box adversarial
    attack via random search", arXiv 1912.00049. Its schedule, written for 10,000 queries, is scaled to the
    given number, as in AutoAttack. Each image has its own random squares, anywhere in it (the published code
    leaves out the last row and column).

    With a fixed budget (``criterion=none``) it makes all queries; if there are several starts, the worst one
    for the model counts.

    Attributes:
        queries: number of forward passes, the start included, at least 1.
        restarts: independent starts, at least 1, each with all queries.
        p: the share of the image that the first squares cover, in (0, 1].
    """

    name: ClassVar[str] = "square"
    needs_gradients: ClassVar[bool] = False
    verifies_result: ClassVar[bool] = False

    criterion: str | None = "top1"
    queries: int = 5000
    p: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.queries >= 1, "queries", "1 or more")
        self.require(0 < self.p <= 1, "p", "more than 0, at most 1")

    def gradients(self, budgets: int) -> int:
        # A forward pass takes about half the time of a gradient.
        return budgets * self.restarts * (self.queries + 1) // 2

    def begin(self, inputs: AttackInputs) -> AttackState:
        clean = inputs.ball.images
        first = first_stripes if inputs.ball.norm == "linf" else first_tiles
        start = inputs.ball.project(clean + inputs.ball.eps * first(clean, inputs.generator))
        return _Squares(
            inputs=inputs,
            points=start,
            queries_left=torch.full_like(inputs.labels, self.queries),
            best=start,
            best_margin=clean.new_full(inputs.labels.shape, -torch.inf),
            settings=self,
        )


@dataclass
class _Squares(AttackState):
    """Attributes: best and best_margin, the point of the largest margin so far, and that; settings."""

    # Late squares change the margin by less than bfloat16 resolves. With it, the second half would miss five
    # of six improvements, and accept some false ones.
    precise: ClassVar[bool] = True

    best: Tensor
    best_margin: Tensor
    settings: Square

    def ask(self, attacked: AttackedModel) -> ModelOutput:
        return ModelOutput(attacked.search_logits(self.points, precise=self.precise))

    def move(self, answer: ModelOutput) -> None:
        margin = self.inputs.criterion.margin(answer.logits, self.inputs.labels)
        better = margin > self.best_margin
        self.best = torch.where(better.view(-1, 1, 1, 1), self.points, self.best)
        self.best_margin = torch.where(better, margin, self.best_margin)
        self.queries_left = self.queries_left - 1
        if is_asynchronous(margin.device) or bool((self.queries_left > 0).any()):
            self.points = self._proposals()

    def result(self) -> Tensor:
        return self.best

    def _proposals(self) -> Tensor:
        ball = self.inputs.ball
        windows = SquareWindows(self.best, self._shares(), self.inputs.generator)
        if ball.norm == "linf":
            return ball.project(windows.repainted(self.best, 2 * ball.eps))
        change = windows.rebuilt(self.best - ball.images, ball.eps)
        return ball.project(ball.images + ball.eps * ball.direction(change))

    def _shares(self) -> Tensor:
        """The part of each image that its next square covers, ``(N,)``."""
        proposed = self.settings.queries - self.queries_left - 1
        scaled = (proposed * _SCHEDULE).div(self.settings.queries, rounding_mode="floor")
        halvings = torch.bucketize(scaled, _halved_after(scaled.device))
        return self.settings.p / 2.0 ** halvings.float()


@lru_cache
def _halved_after(device: torch.device) -> Tensor:
    """:data:`_HALVED_AFTER`, copied to a device once."""
    return torch.tensor(_HALVED_AFTER, device=device)


# The smallest window in which the l2 pattern still has two sides.
_LEAST_L2_SIDE = 3
_TILES = 5
_TINY = 1e-12


def first_stripes(images: Tensor, generator: torch.Generator) -> Tensor:
    """Vertical stripes one pixel wide, each channel at 1 or -1, in the shape of the images."""
    count, channels, _, width = images.shape
    return _signs((count, channels, 1, width), images, generator).expand_as(images)


def first_tiles(images: Tensor, generator: torch.Generator) -> Tensor:
    """A centred grid of five by five patterns with random signs and directions, of length 1 per image."""
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
        shares: share of an image's pixels that the square covers, ``(N,)``; the shorter side limits it.
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
        """The changes, with the length of two squares and the unused part of eps moved into one of them."""
        sides = self._sides.clamp(min=_LEAST_L2_SIDE)
        sides = (sides + (sides % 2 == 0)).clamp(max=min(self._height, self._width))
        rebuilt = changes.clone()
        # Windows of one size together: a batch has few sizes, and indexing needs one size.
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
        """The upper left corner of each square, uniform over all positions in the image, ``(N,)`` twice."""
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
        """The rows or columns that each square covers, bool ``(N, whole)``."""
        at = torch.arange(whole, device=start.device)
        return (at >= start.unsqueeze(1)) & (at < (start + sides).unsqueeze(1))


def _window(top: Tensor, left: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Indices of each window's pixels, to combine with those of rows and channels."""
    along = torch.arange(side, device=top.device)
    return (top.view(-1, 1) + along).view(-1, 1, side, 1), (left.view(-1, 1) + along).view(-1, 1, 1, side)


def _squares(changes: Tensor) -> Tensor:
    """The sum of squares of each channel, ``(N, C, 1, 1)``."""
    return (changes**2).sum(dim=(2, 3), keepdim=True)


def _lengths(changes: Tensor) -> Tensor:
    """Euclidean lengths over the last three dimensions, or over both dimensions of a matrix."""
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
    """A hill above a valley, ``(side, side)``: values fall from the middle of each half to its edge."""
    upper = side // 2
    both = torch.cat([_hill(upper, side), -_hill(side - upper, side)])
    return both / _lengths(both)


def _hill(height: int, width: int) -> Tensor:
    """Nested squares around the middle, each raising the values inside it, of length 1."""
    middle = height // 2, width // 2
    reach = max(middle) + 1
    lifts = 1 / torch.arange(1, reach + 1, dtype=torch.float32) ** 2
    heights = lifts.flip(0).cumsum(0).flip(0)
    away_y = (torch.arange(height) - middle[0]).abs().view(-1, 1)
    away_x = (torch.arange(width) - middle[1]).abs().view(1, -1)
    hill = heights[torch.maximum(away_y, away_x)]
    return hill / _lengths(hill) if height else hill
