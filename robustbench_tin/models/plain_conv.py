"""Convolutions that their settings define completely and the sizes that follow from these."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import nn


def is_plain_conv(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """True for a convolution with numeric zero padding and no dilation, in any number of groups.

    A subclass is never plain: it may pad in its own way.
    """
    return (
        type(module) is nn.Conv2d
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def padding_of(convolution: nn.Conv2d) -> tuple[int, int]:
    """Rows and columns of zeros that a plain convolution adds on each side."""
    assert not isinstance(convolution.padding, str)
    top, left = convolution.padding
    return top, left


def output_size(convolution: nn.Conv2d, size: torch.Size | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a plain convolution's output for maps of this height and width."""
    sides = zip(size, padding_of(convolution), convolution.kernel_size, convolution.stride, strict=True)
    height, width = ((whole + 2 * pad - kernel) // step + 1 for whole, pad, kernel, step in sides)
    return height, width
