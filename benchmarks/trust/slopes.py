"""Compare a model's gradients with finite differences.

The gradient of an image's margin predicts how the margin changes along any direction. Forward passes measure
the change. Both agree for a differentiable model. They disagree if the gradient belongs to another network,
or is cut, noisy or shattered, even if it looks right to an attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from robustbench_tin.benchmarks.trust.frozen import ProbedModel

Numbers = npt.NDArray[np.float64]

NEAR, NEARER, FAR = 0.1 / 255, 0.02 / 255, 4 / 255
OF_COARSE = 1 / 255
"""Lengths of differences: the largest change of a value in units of the pixel range.

Over ``NEAR`` even rough networks agree with their gradients; if one does not, ``NEARER`` decides. ``FAR`` is
the longest step of an attack. Logits of half precision need at least ``OF_COARSE`` for a visible change.
"""

KINDS = ("smooth", "fine", "alternating", "one-channel", "one-region", "steepest")
"""The kinds of directions for finite differences.

``smooth``: varies over a quarter of the image; ``fine``: each value by itself; ``alternating``: a smooth
change whose sign flips from pixel to pixel; ``one-channel`` and ``one-region``: smooth, in one channel or in
one quarter of the image; ``steepest``: the sign of the gradient. If a gradient is cut in some rows, channels,
regions or frequencies, it predicts too small a change along at least one kind.
"""

# Number of kinds that are drawn at random: all but the steepest.
_DRAWN = 5
# Numbers of pieces of the line from one image to another. If the error of the sum exceeds _CLOSE, each piece
# is cut into three, on the first _WAYS lines. Whether the error shrinks at first is chance: with 6, 24, 72
# and 216 pieces it was 0.47, 0.32, 0.07 and 0.15 on one honest, rough network, and 0.44, 0.32, 0.19 and 0.13
# on another. With 162 pieces it was at most 0.28 on twelve draws of images, so the change of the sum by the
# last cut is allowed on top. Nothing is cut further if an error above _HOPELESS remains.
_PIECES = 6, 18, 54, 162
_CLOSE, _HOPELESS, _WAYS = 0.2, 0.8, 8
_COARSE = 4
_REGIONS = 4
# Number of images that a channel or region needs for an error of its own.
_LEAST = 5
# An imperceptible change: a few units in the last place of a float32 pixel.
_IMPERCEPTIBLE = 2e-6


@dataclass(frozen=True)
class Slopes:
    """Predicted and measured changes of margins.

    Attributes:
        measured: changes measured by forward passes, float64 ``(images, directions)``.
        promised: changes predicted by the gradient, float64 ``(images, directions)``.
        floor: error of the measured changes that rounding alone may cause, float64 ``(images,)``.
        parts: for each direction, the number of channels or regions among which the images alternate; else 1.
        unsure: error of the predicted changes that too few gradients may cause, float64 ``(images,)``.
    """

    measured: Numbers
    promised: Numbers
    floor: Numbers
    parts: Sequence[int]
    unsure: Numbers | float = 0.0

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Images whose changes are clearly larger than rounding errors, bool ``(images,)``."""
        size = np.maximum(np.abs(self.measured), np.abs(self.promised)).max(axis=1, initial=0)
        usable: npt.NDArray[np.bool_] = size > 8 * self.floor
        return usable

    def errors(self) -> Numbers:
        """The relative error of each usable image, from 0 (exact) to 1 (unrelated); float64 ``(usable,)``.

        It covers all directions except the steepest, which would outweigh the others.
        """
        off, size = (values[:, :_DRAWN] for values in self._sizes())
        errors: Numbers = off.sum(axis=1) / np.maximum(size.sum(axis=1), 1e-12)
        return errors

    def errors_by_direction(self) -> Numbers:
        """The relative error of each direction, with equal weight for each image; float64 ``(directions,)``.

        For directions within one channel or region it is the error of the worst channel or region, because
        the others could hide it.
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
        """Median ratio of measured to predicted change in the last direction; None if no image is usable."""
        usable = self.usable
        if not usable.any():
            return None
        promised = np.maximum(np.abs(self.promised[usable, -1]), 1e-30)
        return float(np.median(self.measured[usable, -1] / promised))

    @property
    def doubtful(self) -> bool:
        """Whether an error is so large that the measurement should be repeated over a shorter length."""
        errors = self.errors()
        return not len(errors) or bool((errors > 0.5).any()) or bool(self.errors_by_direction().max() > 0.2)

    def _sizes(self) -> tuple[Numbers, Numbers]:
        allowed = 2 * self.floor + self.unsure
        measured, promised, allowed = (
            values[self.usable] for values in (self.measured, self.promised, allowed)
        )
        off = np.maximum(np.abs(measured - promised) - allowed[:, None], 0)
        return off, np.abs(measured) + np.abs(promised)


@dataclass(frozen=True)
class Margin:
    """The difference of the logits of two classes, for each image of a batch.

    Attributes:
        over: the class whose logit counts positively, int64 ``(N,)``.
        under: the class whose logit counts negatively, int64 ``(N,)``.
    """

    over: Tensor
    under: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """The margins ``(N,)`` of logits ``(N, C)``."""
        columns = torch.stack([self.over, self.under], dim=1)
        over, under = logits.gather(1, columns).unbind(dim=1)
        return over - under

    def first(self, images: int) -> Margin:
        """The margins of the first images."""
        return Margin(self.over[:images], self.under[:images])


def jumps(subject: ProbedModel, images: Tensor, logits: Tensor) -> Tensor:
    """The change of each margin under an imperceptible change of all pixels, at most 1/100,000.

    Args:
        subject: the model.
        images: one batch, float32 ``(N, C, H, W)`` in [0, 1].
        logits: logits of these images, ``(N, C)``.

    Returns:
        Absolute changes, float32 ``(N,)``.
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
    """Central differences along every kind of direction, and the changes that the gradient predicts.

    Args:
        subject: the model.
        images: one batch, float32 ``(N, C, H, W)`` in [0, 1].
        length: largest change of a value to either side, in units of the pixel range.
        floor: change of each margin by rounding alone, ``(N,)``.
        seed: seed of the directions.
    """
    images = images.clamp(length, 1 - length)
    margin = _top_two(subject.logits(images))
    gradient = subject.gradient(images, margin).nan_to_num()
    directions = [*_drawn(gradient, seed), gradient.sign()]
    parts = (1, 1, 1, images.shape[1], _REGIONS, 1)
    return _along(subject, images, margin, gradient, directions, parts, length, floor)


def climbs(subject: ProbedModel, images: Tensor, length: float, floor: Tensor) -> Slopes:
    """Central differences and predicted changes along the steepest direction only, ``(N, 1)``.

    The arguments are those of :func:`differences`.
    """
    images = images.clamp(length, 1 - length)
    margin = _top_two(subject.logits(images))
    gradient = subject.gradient(images, margin).nan_to_num()
    return _along(subject, images, margin, gradient, [gradient.sign()], (1,), length, floor)


def passages(subject: ProbedModel, images: Tensor, floor: Tensor) -> Slopes:
    """The change of the margin from each image to the next one, and the sum of the predicted changes.

    The gradients are taken at the midpoints of equal pieces of the line between both images. If the sum is
    too far off, smaller pieces are used: this brings the sum closer for a rough network, but not for a model
    whose logits change in steps. Sundararajan, Taly and Yan, 2017, "Axiomatic Attribution for Deep Networks",
    arXiv 1703.01365, call this agreement completeness.

    Args:
        subject: the model.
        images: one batch of two images or more, float32 ``(N, C, H, W)`` in [0, 1].
        floor: change of each margin by rounding alone, ``(N,)``.
    """
    way = images.roll(1, dims=0) - images
    logits, theirs = subject.logits(images), subject.logits(images + way)
    first, second = logits.topk(2, dim=1).indices.unbind(dim=1)
    there = theirs.argmax(dim=1)
    margin = Margin(torch.where(there == first, second, there), first)
    measured = margin(theirs) - margin(logits)
    total = torch.zeros_like(measured)
    before = np.full((len(images), 1), np.inf)
    for pieces in _PIECES:
        for piece in range(pieces):
            if pieces > _PIECES[0] and piece % 3 == 1:
                continue  # the midpoint of the piece before it was cut
            gradient = subject.gradient(images + (piece + 0.5) / pieces * way, margin).nan_to_num()
            total += (gradient * way).flatten(1).sum(dim=1)
        found = _slopes(measured[:, None], total[:, None] / pieces, floor, (1,))
        if not found.usable.any() or found.errors_by_direction()[0] <= _CLOSE:
            return found
        found = replace(found, unsure=np.abs(found.promised - before)[:, 0])
        if found.errors_by_direction()[0] > _HOPELESS:
            break
        before = found.promised[:_WAYS]
        images, way, margin = images[:_WAYS], way[:_WAYS], margin.first(_WAYS)
        measured, total, floor = measured[:_WAYS], total[:_WAYS], floor[:_WAYS]
    return found


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
    """The logit of the second class minus the logit of the first."""
    first, second = logits.topk(2, dim=1).indices.unbind(dim=1)
    return Margin(second, first)


def _drawn(gradient: Tensor, seed: int) -> list[Tensor]:
    """One batch of directions for each random kind, in the order of :data:`KINDS`; the largest value is 1."""
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
