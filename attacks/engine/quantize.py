"""Adversarial images as a file can hold them: eight bits a value."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import Ball, L2Ball

# Rounding adds at most a small part of one level to a length; the bound also ends the loop for NaN.
_CORRECTIONS = 4


def to_8bit(candidates: Tensor, ball: Ball) -> Tensor:
    """The candidates rounded to multiples of 1/255 without leaving the ball.

    Each value goes to the nearest multiple or, if that is outside, to the next towards the clean image.
    In an l2 ball the nearest multiples are taken for as many values as fit, those first that the other
    choice would move furthest.

    Args:
        candidates: float32 ``(N, C, H, W)`` inside the ball.
        ball: around clean images that are multiples of 1/255 themselves.

    Returns:
        float32 of the same shape; a uint8 file holds it exactly.

    Raises:
        InvalidSettingError: if the clean images are not such multiples.
    """
    clean = (ball.images * 255).round()
    if not torch.equal(clean / 255, ball.images):
        raise InvalidSettingError("8bit got images that are no multiples of 1/255; expected 8-bit images")
    # In levels of 1/255, which float32 holds exactly once rounded.
    change = candidates * 255 - clean
    size = change.abs()
    # A value already on the grid may be a hair off after scaling; towards the image it must not skip a level.
    towards = (size + 1e-4).floor()
    nearest = size.round()
    direction = change.sign()
    if isinstance(ball, L2Ball):
        chosen = torch.where(_fitting(size, towards, nearest, ball), nearest, towards)
        # Float32 holds levels nearly: where that leads out by a hair, one level less leads in again.
        for _ in range(_CORRECTIONS):
            inside = ball.contains((clean + direction * chosen) / 255)
            if bool(inside.all()):
                break
            flat = chosen.flatten(1)
            less = torch.zeros_like(flat).scatter(1, flat.argmax(dim=1, keepdim=True), 1.0)
            chosen = chosen - less.view_as(chosen) * (~inside).view(-1, 1, 1, 1)
    else:
        # In float32 a multiple may lie a rounding outside even if its level does not.
        level = torch.where(_outside(clean + direction * nearest, ball), towards, nearest)
        chosen = torch.where(_outside(clean + direction * level, ball), level - 1, level).clamp(min=0)
    return (clean + direction * chosen) / 255


def _outside(levels: Tensor, ball: Ball) -> Tensor:
    """Which values lie outside a ball that bounds each value by itself."""
    rounded = levels / 255
    return ball.project(rounded) != rounded


def _fitting(size: Tensor, towards: Tensor, nearest: Tensor, ball: L2Ball) -> Tensor:
    """Which values may change by the nearest level, so that the change as a whole is no longer than allowed.

    Args:
        size: of the change in levels, before rounding.
        towards: of the change rounded towards the clean image.
        nearest: of the change rounded to the nearest level.
        ball: whose radius is what is allowed.
    """
    short, long = towards.flatten(1).double(), nearest.flatten(1).double()
    cost = long**2 - short**2
    room = (255 * ball.eps) ** 2 - (short**2).sum(dim=1, keepdim=True)
    order = (size.flatten(1) - towards.flatten(1)).argsort(dim=1, descending=True, stable=True)
    fits = cost.gather(1, order).cumsum(dim=1) <= room
    return torch.zeros_like(fits).scatter(1, order, fits).view_as(size)
