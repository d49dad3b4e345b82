"""A faster backward pass through a network's first, strided convolution, on a CPU.

Most backward passes to the pixels end with a strided convolution of three channels. CPU kernels handle it
poorly: for a resnet18 at 64 px it takes a seventh of the pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.attacks.acceleration.module_surgery import put
from robustbench_tin.models.plain_conv import is_plain_conv

# With more channels than colours, the usual kernels are faster.
_MOST_CHANNELS = 4


def replace_strided_convs(model: nn.Module, images: Tensor) -> nn.Module:
    """The model with its strided convolutions of pixels replaced, in place; weights get no gradients.

    Args:
        model: a copy, in eval mode.
        images: not used.
    """
    for name, module in list(model.named_modules()):
        if name and _is_stem(module):
            put(model, name, _Stem(module))
    return model


def _is_stem(module: nn.Module) -> bool:
    return (
        is_plain_conv(module)
        and module.in_channels <= _MOST_CHANNELS
        and module.groups == 1
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
    """A strided convolution whose backward pass is a convolution without stride.

    Pixels whose distance is a multiple of the stride get their gradients from the same places of the kernel.
    Each such phase is therefore a convolution with a part of the kernel. One convolution computes all phases
    as its output channels, and a pixel shuffle puts them in place.
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
        # The last pixels get zeros if the kernel did not reach them.
        missing = (max(0, left + width - padded.shape[-1]), max(0, top + height - padded.shape[-2]))
        padded = functional.pad(padded, (0, missing[0], 0, missing[1]))
        return padded[..., top : top + height, left : left + width].float(), None, None, None, None
