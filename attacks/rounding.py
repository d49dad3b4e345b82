"""Adversarial images as a file can hold them: eight bits a value."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import Ball


def to_8bit(candidates: Tensor, ball: Ball) -> Tensor:
    """The candidates rounded to multiples of 1/255 without leaving the ball.

    Each value goes to the nearest multiple or, where that is outside, to the next towards the clean image.

    Args:
        candidates: float32 ``(N, C, H, W)`` inside the ball.
        ball: around clean images that are multiples of 1/255 themselves.

    Raises:
        InvalidSettingError: where the clean images are not.
    """
    clean = ball.images
    if not torch.equal((clean * 255).round() / 255, clean):
        raise InvalidSettingError("8bit got images that are no multiples of 1/255; expected 8-bit images")
    scaled = candidates * 255
    nearest = scaled.round() / 255
    # A value already on the grid may be a hair off after scaling; towards the image it must not skip a level.
    towards = torch.where(candidates > clean, (scaled + 1e-3).floor(), (scaled - 1e-3).ceil()) / 255
    inside = ball.project(nearest) == nearest
    return torch.where(inside, nearest, towards)
