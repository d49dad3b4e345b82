"""Convolutions of tiny maps as matrix products: the same function for fewer multiplications.

At the end of a network the kernel is larger than the map, and most of its places lie outside. A
kernel of 3 x 3 on a map of 2 x 2 multiplies nine times an output, four of them with a pixel; of a resnet18 at
64 px such layers are a sixth of the whole pass.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.layers import input_shapes, put


def with_tiny_maps_multiplied(model: nn.Module, images: Tensor) -> nn.Module:
    """The model with each convolution whose kernel has more places than its map replaced, in place.

    Args:
        model: in eval mode; its weights get no gradients any more.
        images: a few images that it takes, for the sizes of its maps.
    """
    for name, shapes in input_shapes(model, images, _is_plain).items():
        convolution, size = model.get_submodule(name), shapes[-1][-2:]
        assert isinstance(convolution, nn.Conv2d)
        if size.numel() < convolution.weight[0, 0].numel():
            put(model, name, _Multiplied(convolution, size))
    return model


def _is_plain(module: nn.Module) -> bool:
    # Not of a kind derived from it: that one may pad in a way of its own.
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


class _Multiplied(nn.Module):
    """Maps of the given size, pixels before channels, times one matrix; other maps are convolved."""

    def __init__(self, convolution: nn.Conv2d, size: torch.Size) -> None:
        super().__init__()
        self.convolution = convolution
        self.size = size
        blocks = _blocks(convolution, size)
        self.out = blocks.shape[:2]
        matrix = blocks.flatten(3).flatten(0, 2)
        has_bias = convolution.bias is not None
        self.product = nn.Linear(matrix.shape[1], matrix.shape[0], bias=has_bias, device="meta")
        self.product.weight = nn.Parameter(matrix, requires_grad=False)
        if convolution.bias is not None:
            bias = convolution.bias.detach().repeat(self.out.numel())
            self.product.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, maps: Tensor) -> Tensor:
        if maps.shape[-2:] != self.size:
            moved: Tensor = self.convolution(maps)
            return moved
        flat = maps.permute(0, 2, 3, 1).flatten(1)
        product: Tensor = self.product(flat)
        return product.view(len(maps), *self.out, -1).permute(0, 3, 1, 2)


def _blocks(convolution: nn.Conv2d, size: torch.Size) -> Tensor:
    """What each pixel of each channel does to each output, ``(height, width, out, height, width, in)``."""
    weight = convolution.weight.detach()
    assert not isinstance(convolution.padding, str)
    (top, left), (down, right) = convolution.padding, convolution.stride
    kernel = weight.shape[-2:]
    out = [
        (whole + 2 * pad - side) // step + 1
        for whole, pad, side, step in zip(size, (top, left), kernel, (down, right), strict=True)
    ]
    blocks = weight.new_zeros(*out, weight.shape[0], *size, weight.shape[1])
    for y, x, row, column in product(*map(range, out), *map(range, size)):
        at = row - y * down + top, column - x * right + left
        if 0 <= at[0] < kernel[0] and 0 <= at[1] < kernel[1]:
            blocks[y, x, :, row, column] = weight[:, :, at[0], at[1]]
    return blocks
