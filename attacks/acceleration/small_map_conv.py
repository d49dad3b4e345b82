"""Convolutions of small maps as matrix products: the same function for fewer multiplications.

At the end of a network the kernel is larger than the map, and most of it meets padding. A kernel of 3 x 3 on
a map of 2 x 2 multiplies nine times for each output, but only four of them with a pixel. For a resnet18 at 64
px, such layers take a sixth of the pass.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.attacks.acceleration.module_surgery import input_shapes, put
from robustbench_tin.models.plain_conv import is_plain_conv, output_size, padding_of

# Images of the pass that shows the sizes of the maps.
_SHOWN = 2


def replace_small_map_convs(model: nn.Module, images: Tensor) -> nn.Module:
    """The model with each convolution whose kernel has more places than its map replaced, in place.

    Args:
        model: a copy, in eval mode; its weights get no gradients any more.
        images: a few images that the model accepts, float32 ``(N, C, H, W)``.
    """
    for name, shapes in input_shapes(model, images[:_SHOWN], _is_dense).items():
        convolution, size = model.get_submodule(name), shapes[-1][-2:]
        assert isinstance(convolution, nn.Conv2d)
        if size.numel() < convolution.weight[0, 0].numel():
            put(model, name, _Multiplied(convolution, size))
    return model


def _is_dense(module: nn.Module) -> bool:
    return is_plain_conv(module) and module.groups == 1


Place = tuple[int, int, int, int]


class _Multiplied(nn.Module):
    """Multiplies maps of the given size, pixels before channels, by one matrix; convolves other maps.

    The matrix is larger than the kernel. The kernel is therefore kept only if the matrix lacks some of its
    places.
    """

    def __init__(self, convolution: nn.Conv2d, size: torch.Size) -> None:
        super().__init__()
        self.size = size
        self.stride, self.padding = convolution.stride, convolution.padding
        self.kernel_size = convolution.kernel_size
        places = _places(convolution, size)
        self.kernel_places = {at: place for place, at in places.items()}
        whole = len(self.kernel_places) == convolution.weight[0, 0].numel()
        self.convolution = None if whole else convolution
        weight = convolution.weight.detach()
        self.out = output_size(convolution, size)
        self.blocks = (*self.out, weight.shape[0], *size, weight.shape[1])
        blocks = weight.new_zeros(self.blocks)
        for (y, x, row, column), at in places.items():
            blocks[y, x, :, row, column] = weight[:, :, *at]
        matrix = blocks.flatten(3).flatten(0, 2)
        has_bias = convolution.bias is not None
        self.product = nn.Linear(matrix.shape[1], matrix.shape[0], bias=has_bias, device="meta")
        self.product.weight = nn.Parameter(matrix, requires_grad=False)
        if convolution.bias is not None:
            bias = convolution.bias.detach().repeat(math.prod(self.out))
            self.product.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, maps: Tensor) -> Tensor:
        if maps.shape[-2:] != self.size:
            return self._convolved(maps)
        flat = maps.permute(0, 2, 3, 1).flatten(1)
        product: Tensor = self.product(flat)
        return product.view(len(maps), *self.out, -1).permute(0, 3, 1, 2)

    def _convolved(self, maps: Tensor) -> Tensor:
        if self.convolution is not None:
            moved: Tensor = self.convolution(maps)
            return moved
        matrix = self.product.weight
        blocks = matrix.view(self.blocks)
        kernel = blocks.new_empty(blocks.shape[2], blocks.shape[-1], *self.kernel_size)
        for at, (y, x, row, column) in self.kernel_places.items():
            kernel[:, :, *at] = blocks[y, x, :, row, column]
        bias = None if self.product.bias is None else self.product.bias[: len(kernel)]
        return functional.conv2d(maps, kernel, bias, self.stride, self.padding)


def _places(convolution: nn.Conv2d, size: torch.Size) -> dict[Place, tuple[int, int]]:
    """The kernel's position between an output (row, column) and a pixel (row, column)."""
    (top, left), (down, right) = padding_of(convolution), convolution.stride
    height, width = convolution.kernel_size
    places = {}
    for y, x, row, column in product(*map(range, (*output_size(convolution, size), *size))):
        at = row - y * down + top, column - x * right + left
        if 0 <= at[0] < height and 0 <= at[1] < width:
            places[y, x, row, column] = at
    return places
