"""Convolutions whose arithmetic is all in their settings, and what these say."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import nn


def is_plain_conv(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a convolution that pads with zeros, by numbers, and skips no pixels; in any groups.

    No subclass is: it may pad in its own way.
    """
    return (
        type(module) is nn.Conv2d
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def padding_of(convolution: nn.Conv2d) -> tuple[int, int]:
    """Rows and columns of zeros on each side, of a plain convolution."""
    assert not isinstance(convolution.padding, str)
    top, left = convolution.padding
    return top, left


def output_size(convolution: nn.Conv2d, size: torch.Size | tuple[int, int]) -> tuple[int, int]:
    """Height and width of what a plain convolution makes of maps of this height and width."""
    sides = zip(size, padding_of(convolution), convolution.kernel_size, convolution.stride, strict=True)
    height, width = ((whole + 2 * pad - kernel) // step + 1 for whole, pad, kernel, step in sides)
    return height, width
