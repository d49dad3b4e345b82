"""The way back from a network's first convolution to its pixels, quick on a CPU.

A strided convolution of three channels is what most backward passes to pixels end with, and what the
kernels of CPUs are made for least: of a resnet18 at 64 px it is a seventh of the whole pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.attacks.acceleration.module_surgery import put

# With more channels than colours, the usual kernels are the faster ones.
_MOST_CHANNELS = 4


def with_quick_stems(model: nn.Module) -> nn.Module:
    """The model with its strided convolutions of pixels replaced, in place; weights get no gradients."""
    for name, module in list(model.named_modules()):
        if name and _is_stem(module):
            put(model, name, _Stem(module))
    return model


def _is_stem(module: nn.Module) -> bool:
    # Not of a kind derived from it: that one may pad in a way of its own.
    return (
        type(module) is nn.Conv2d
        and module.in_channels <= _MOST_CHANNELS
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.stride[0] == module.stride[1] > 1
    )


class _Stem(nn.Module):
    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, images: Tensor) -> Tensor:
        given = self.convolution
        moved: Tensor = _Convolve.apply(images, given.weight, given.bias, given.stride, given.padding)
        return moved


class _Convolve(torch.autograd.Function):
    """A convolution with a stride whose way back is a convolution without one.

    Pixels that lie a multiple of the stride apart take their gradients from the same places of the kernel. So
    each such phase is a convolution of its own with a part of the kernel, and all of them are one
    with as many outputs, which then only have to be put in their places.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.size = stride[0], padding, images.shape[-2:]
        return functional.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        stride, (top, left), (height, width) = ctx.stride, ctx.padding, ctx.size
        rows, columns = (-(-length // stride) for length in weight.shape[-2:])
        whole = functional.pad(
            weight, (0, columns * stride - weight.shape[-1], 0, rows * stride - weight.shape[-2])
        )
        phases = functional.pixel_unshuffle(whole, stride).flip(2, 3).transpose(0, 1)
        moved = functional.conv2d(gradients[0], phases.contiguous(), padding=(rows - 1, columns - 1))
        padded = functional.pixel_shuffle(moved, stride)
        # The last pixels, where the kernel did not reach them, get zeros.
        missing = (max(0, left + width - padded.shape[-1]), max(0, top + height - padded.shape[-2]))
        padded = functional.pad(padded, (0, missing[0], 0, missing[1]))
        return padded[..., top : top + height, left : left + width].float(), None, None, None, None
