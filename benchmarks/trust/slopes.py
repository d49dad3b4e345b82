"""Gradients against differences: does what a model's gradient promises happen?

The gradient of an image's margin promises how the margin changes along any direction. Forward passes measure
the change. Both agree for a differentiable model. They do not if the gradient is another network's, cut,
noisy or shattered, however convincing it looks to an attack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from robustbench_tin.benchmarks.trust.frozen import ProbedModel

Numbers = npt.NDArray[np.float64]

NEAR, NEARER, FAR = 0.1 / 255, 0.02 / 255, 4 / 255
OF_COARSE = 1 / 255
"""Lengths of differences, the largest change of a value in units of the pixel range.

Over ``NEAR`` even rough networks keep to their gradients; if one does not, ``NEARER`` decides. ``FAR`` is the
longest step of an attack. Logits of half precision tell nothing apart over less than ``OF_COARSE``.
"""

KINDS = ("smooth", "fine", "alternating", "one-channel", "one-region", "steepest")
"""Directions that differences are taken along.

``smooth``: over a quarter of the image; ``fine``: every value by itself; ``alternating``: a smooth change
whose sign flips from pixel to pixel; ``one-channel`` and ``one-region``: smooth, in one channel or in one
quarter of the image; ``steepest``: the sign of the gradient. A gradient that is cut in some rows, channels,
regions or frequencies promises too little along at least one of them.
"""

# Of the kinds of directions, those that are drawn.
_DRAWN = 5
# Pieces of the way from one image to another, at first and if the sum over them is further off than this.
# They become more as long as each sum is off by at most this part of the one before; for that, few ways will
# do. On two honest networks of short trainings the sums were off by 0.51, 0.40, 0.08, and by 0.29, 0.15.
_PIECES = 6, 24, 72
_CLOSE, _CLOSER, _WAYS = 0.2, 0.85, 12
_COARSE = 4
_REGIONS = 4
# Images that a channel or region must have to be judged by itself.
_LEAST = 5
# A change that nobody sees: a few units in the last place of a float32 pixel.
_IMPERCEPTIBLE = 2e-6


@dataclass(frozen=True)
class Slopes:
    """Promised and measured changes of margins.

    Attributes:
        measured: by forward passes, float64 ``(images, directions)``.
        promised: by the gradient, likewise.
        floor: how far the measured ones may be off by rounding alone, float64 ``(images,)``.
        parts: of each direction, the number of channels or regions that the images take turns in; else 1.
    """

    measured: Numbers
    promised: Numbers
    floor: Numbers
    parts: Sequence[int]

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Images whose changes stand out from rounding, bool ``(images,)``."""
        size = np.maximum(np.abs(self.measured), np.abs(self.promised)).max(axis=1, initial=0)
        usable: npt.NDArray[np.bool_] = size > 8 * self.floor
        return usable

    def errors(self) -> Numbers:
        """Of each usable image, from 0 (kept to the letter) to 1 (unrelated); float64 ``(usable,)``.

        Over all directions but the steepest, which would outweigh the others.
        """
        off, size = (values[:, :_DRAWN] for values in self._sizes())
        errors: Numbers = off.sum(axis=1) / np.maximum(size.sum(axis=1), 1e-12)
        return errors

    def errors_by_direction(self) -> Numbers:
        """The same of each direction, every image with the same weight; float64 ``(directions,)``.

        Of directions within one channel or region, the error of the worst channel or region: a cut one may
        matter less than the others, and hides among them.
        """
        off, size = self._sizes()
        weight = size.sum(axis=1, keepdims=True)
        off, size = off / weight, size / weight
        number = np.flatnonzero(self.usable)
        errors = []
        for direction, parts in enumerate(self.parts):
            groups = [number % parts == part for part in range(parts)]
            enough = [group for group in groups if group.sum() >= _LEAST] if parts > 1 else groups
            of_groups = [
                off[group, direction].sum() / max(size[group, direction].sum(), 1e-12) for group in enough
            ]
            errors.append(max(of_groups, default=0.0))
        return np.array(errors)

    def kept(self) -> float | None:
        """Median part of a promised change that happens in the last direction; None if no image is usable."""
        usable = self.usable
        if not usable.any():
            return None
        promised = np.maximum(np.abs(self.promised[usable, -1]), 1e-30)
        return float(np.median(self.measured[usable, -1] / promised))

    @property
    def doubtful(self) -> bool:
        """Whether an image or a direction is off by so much that a closer look is due."""
        errors = self.errors()
        return not len(errors) or bool((errors > 0.5).any()) or bool(self.errors_by_direction().max() > 0.2)

    def _sizes(self) -> tuple[Numbers, Numbers]:
        measured, promised, floor = (
            values[self.usable] for values in (self.measured, self.promised, self.floor)
        )
        off = np.maximum(np.abs(measured - promised) - 2 * floor[:, None], 0)
        return off, np.abs(measured) + np.abs(promised)


@dataclass(frozen=True)
class Margin:
    """How far one class is above another, for each image of a batch.

    Attributes:
        over: the class that is to win, int64 ``(N,)``.
        under: the class that is to lose, likewise.
    """

    over: Tensor
    under: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """The margins ``(N,)`` of logits ``(N, C)``."""
        columns = torch.stack([self.over, self.under], dim=1)
        over, under = logits.gather(1, columns).unbind(dim=1)
        return over - under


def jumps(subject: ProbedModel, images: Tensor, logits: Tensor) -> Tensor:
    """How far margins move when no pixel changes by more than 1/100,000, float32 ``(N,)``.

    Args:
        subject: the model.
        images: one batch.
        logits: of these images.
    """
    margin = _top_two(logits)
    signs = (
        torch.randn(images.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float32)
        .sign()
        .to(images.device)
    )
    beside = (images + _IMPERCEPTIBLE * signs).clamp(0, 1)
    return (margin(subject.logits(beside)) - margin(logits)).abs()


def differences(subject: ProbedModel, images: Tensor, length: float, floor: Tensor, seed: int) -> Slopes:
    """Central differences along every kind of direction, and what the gradient promised.

    Args:
        subject: the model.
        images: one batch, float32 ``(N, C, H, W)``.
        length: of a difference to either side, the largest change of a value.
        floor: how far a margin moves by rounding, ``(N,)``.
        seed: of the directions.
    """
    images = images.clamp(length, 1 - length)
    margin = _top_two(subject.logits(images))
    gradient = subject.gradient(images, margin).nan_to_num()
    directions = [*_drawn(gradient, seed), gradient.sign()]
    parts = (1, 1, 1, images.shape[1], _REGIONS, 1)
    return _along(subject, images, margin, gradient, directions, parts, length, floor)


def climbs(subject: ProbedModel, images: Tensor, length: float, floor: Tensor) -> Slopes:
    """The same along the steepest direction alone, ``(N, 1)``."""
    images = images.clamp(length, 1 - length)
    margin = _top_two(subject.logits(images))
    gradient = subject.gradient(images, margin).nan_to_num()
    return _along(subject, images, margin, gradient, [gradient.sign()], (1,), length, floor)


def passages(subject: ProbedModel, images: Tensor, floor: Tensor) -> Slopes:
    """From each image towards the next one: the change of the margin, and the sum of what gradients promised.

    Gradients are taken at the middles of equal pieces of the way. If their sum is off, there are more pieces:
    on the way through a rough network the sum comes closer then, and through a model that answers in steps it
    does not. Sundararajan, Taly and Yan, 2017, "Axiomatic Attribution for Deep Networks", arXiv 1703.01365,
    call the sum's agreement completeness.

    Args:
        subject: the model.
        images: one batch of two images or more, float32 ``(N, C, H, W)``.
        floor: how far a margin moves by rounding, ``(N,)``.
    """
    way = images.roll(1, dims=0) - images
    found, before = _passages(subject, images, way, floor, _PIECES[0]), math.inf
    for pieces in _PIECES[1:]:
        off = float(found.errors_by_direction()[0]) if found.usable.any() else 0.0
        if not _CLOSE < off < _CLOSER * before:
            break
        before = off
        found = _passages(subject, images[:_WAYS], way[:_WAYS], floor[:_WAYS], pieces)
    return found


def _passages(subject: ProbedModel, images: Tensor, way: Tensor, floor: Tensor, pieces: int) -> Slopes:
    logits, theirs = subject.logits(images), subject.logits(images + way)
    first, second = logits.topk(2, dim=1).indices.unbind(dim=1)
    there = theirs.argmax(dim=1)
    margin = Margin(torch.where(there == first, second, there), first)
    measured = margin(theirs) - margin(logits)
    promised = torch.zeros_like(measured)
    for piece in range(pieces):
        gradient = subject.gradient(images + (piece + 0.5) / pieces * way, margin).nan_to_num()
        promised += (gradient * way).flatten(1).sum(dim=1) / pieces
    return _slopes(measured[:, None], promised[:, None], floor, (1,))


def _along(
    subject: ProbedModel,
    images: Tensor,
    margin: Margin,
    gradient: Tensor,
    directions: Sequence[Tensor],
    parts: Sequence[int],
    length: float,
    floor: Tensor,
) -> Slopes:
    measured, promised = [], []
    for direction in directions:
        change = length * direction
        ahead, behind = (margin(subject.logits(moved)) for moved in (images + change, images - change))
        measured.append((ahead - behind) / 2)
        promised.append((gradient * change).flatten(1).sum(dim=1))
    return _slopes(torch.stack(measured, dim=1), torch.stack(promised, dim=1), floor, parts)


def _top_two(logits: Tensor) -> Margin:
    """Of the second class over the first."""
    first, second = logits.topk(2, dim=1).indices.unbind(dim=1)
    return Margin(second, first)


def _drawn(gradient: Tensor, seed: int) -> list[Tensor]:
    """One batch of directions of each kind that is drawn, of largest value 1, as :data:`KINDS` lists them."""
    shape = gradient.shape
    count, channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)

    def smooth(rows: int, columns: int) -> Tensor:
        coarse = torch.randn(count, channels, rows, columns, generator=generator, dtype=torch.float32)
        whole = functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
        return whole / whole.flatten(1).abs().amax(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)

    numbers = torch.arange(count)
    flips = 1 - 2 * ((torch.arange(height).view(-1, 1) + torch.arange(width)) % 2)
    channel = functional.one_hot(numbers % channels, channels).view(count, channels, 1, 1)
    below = (torch.arange(height) >= height // 2).view(1, -1, 1) == (numbers % 2 == 1).view(-1, 1, 1)
    right = (torch.arange(width) >= width // 2).view(1, 1, -1) == (numbers // 2 % 2 == 1).view(-1, 1, 1)
    drawn = [
        smooth(_COARSE, _COARSE),
        torch.randn(shape, generator=generator, dtype=torch.float32).sign(),
        smooth(_COARSE, _COARSE) * flips,
        smooth(_COARSE, _COARSE) * channel,
        smooth(2 * _COARSE, 2 * _COARSE) * (below & right).unsqueeze(1),
    ]
    return [direction.to(gradient.device) for direction in drawn]


def _slopes(measured: Tensor, promised: Tensor, floor: Tensor, parts: Sequence[int]) -> Slopes:
    return Slopes(_numbers(measured), _numbers(promised), _numbers(floor), parts)


def _numbers(values: Tensor) -> Numbers:
    numbers: Numbers = values.double().cpu().numpy()
    return numbers
