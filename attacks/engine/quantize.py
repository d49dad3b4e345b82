"""Adversarial images with eight bits per value, as stored in a file."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import Ball, L2Ball

# Rounding adds at most a small part of one level to a length; the bound also ends the loop for NaN.
_CORRECTIONS = 4


def to_8bit(candidates: Tensor, ball: Ball) -> Tensor:
    """The candidates rounded to multiples of 1/255 without leaving the ball.

    Each value goes to the nearest multiple or, if that is outside, to the next one towards the clean image.
    In an l2 ball, as many values as fit take the nearest multiple; those that the other choice would move
    furthest come first.

    Args:
        candidates: float32 ``(N, C, H, W)`` inside the ball.
        ball: the ball around clean images that are multiples of 1/255 themselves.

    Returns:
        float32 of the same shape; a uint8 file holds it exactly.

    Raises:
        InvalidSettingError: if the clean images are not such multiples.
    """
    clean = (ball.images * 255).round()
    if not torch.equal(clean / 255, ball.images):
        raise InvalidSettingError("8bit got images that are not multiples of 1/255; expected 8-bit images")
    # In levels of 1/255; a rounded level is exact in float32.
    change = candidates * 255 - clean
    size = change.abs()
    # Scaling may move a value on the grid by a rounding error; it must not skip a level towards the image.
    towards = (size + 1e-4).floor()
    nearest = size.round()
    direction = change.sign()
    if isinstance(ball, L2Ball):
        chosen = torch.where(_fitting(size, towards, nearest, ball), nearest, towards)
        # Float32 levels have rounding errors: if one leads outside, one level less leads inside again.
        for _ in range(_CORRECTIONS):
            inside = ball.contains((clean + direction * chosen) / 255)
            if bool(inside.all()):
                break
            flat = chosen.flatten(1)
            less = torch.zeros_like(flat).scatter(1, flat.argmax(dim=1, keepdim=True), 1.0)
            chosen = chosen - less.view_as(chosen) * (~inside).view(-1, 1, 1, 1)
    else:
        # In float32, a multiple may lie outside by a rounding error even if its level does not.
        level = torch.where(_outside(clean + direction * nearest, ball), towards, nearest)
        chosen = torch.where(_outside(clean + direction * level, ball), level - 1, level).clamp(min=0)
    return (clean + direction * chosen) / 255


def _outside(levels: Tensor, ball: Ball) -> Tensor:
    """True for values outside a ball that bounds each value separately."""
    rounded = levels / 255
    return ball.project(rounded) != rounded


def _fitting(size: Tensor, towards: Tensor, nearest: Tensor, ball: L2Ball) -> Tensor:
    """True for values that may change to the nearest level, so that the whole change fits into the ball.

    Args:
        size: size of the change in levels, before rounding.
        towards: size of the change rounded towards the clean image.
        nearest: size of the change rounded to the nearest level.
        ball: the ball; its radius limits the change.
    """
    short, long = towards.flatten(1).double(), nearest.flatten(1).double()
    cost = long**2 - short**2
    room = (255 * ball.eps) ** 2 - (short**2).sum(dim=1, keepdim=True)
    order = (size.flatten(1) - towards.flatten(1)).argsort(dim=1, descending=True, stable=True)
    fits = cost.gather(1, order).cumsum(dim=1) <= room
    return torch.zeros_like(fits).scatter(1, order, fits).view_as(size)
