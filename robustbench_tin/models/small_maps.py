"""Layers on maps of a few pixels as matrix products: the same functions and gradients, faster on a CPU.

Late in a network, a map has one, four or sixteen pixels. There, CPU kernels for convolutions take longer to
arrange weights than to multiply. On maps of one pixel, a depthwise kernel of 5 x 5 takes fifty times as long
as the one product per channel that does not meet padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import get_same_padding
from timm.models.vgg import ConvMlp
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from robustbench_tin.models.linear_product import ONEDNN_IS_FASTER, linear
from robustbench_tin.models.plain_conv import is_plain_conv, output_size, padding_of

# Products are faster up to this number of pixels for 1 x 1 convolutions, and up to this number of pairs of
# a pixel and an output for depthwise ones.
_POINTWISE, _PAIRS = 16, 64


def use_products(model: nn.Module) -> None:
    """Compute a model's convolutions and VGG heads on maps of a few pixels as products, if on a CPU.

    Weights and names in the state dict do not change. Layers of other kinds do not change either.
    """
    for layer in model.modules():
        forward = product_forward(layer)
        if forward is not None and "forward" not in vars(layer):
            # When a model is copied, its partial function refers to the copy's layer.
            layer.forward = partial(forward, layer)


def product_forward(layer: nn.Module) -> Callable[[nn.Module, Tensor], Tensor] | None:
    """The forward pass that computes a layer's small maps as products; None for layers of other kinds."""
    if type(layer) is ConvMlp:
        return _vgg_head  # type: ignore[return-value]
    if type(layer) is nn.Linear:
        return _linear if ONEDNN_IS_FASTER else None  # type: ignore[return-value]
    pads_itself = type(layer) is Conv2dSame and layer.dilation == (1, 1)
    if not pads_itself and not is_plain_conv(layer):
        return None
    assert isinstance(layer, nn.Conv2d)
    if layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels:
        return _depthwise  # type: ignore[return-value]
    if layer.groups > 1 or pads_itself:
        return None
    return _pointwise if layer.kernel_size == (1, 1) and layer.padding == (0, 0) else _dense  # type: ignore[return-value]


def _linear(self: nn.Linear, rows: Tensor) -> Tensor:
    return linear(rows, self.weight, self.bias)


def _pointwise(self: nn.Conv2d, maps: Tensor) -> Tensor:
    down, right = self.stride
    if maps.device.type != "cpu" or maps.shape[-2:].numel() > _POINTWISE * down * right:
        return _convolved(self, maps)
    pixels = maps[:, :, ::down, ::right].permute(0, 2, 3, 1)
    return linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def _dense(self: nn.Conv2d, maps: Tensor) -> Tensor:
    size = maps.shape[-2:]
    if maps.device.type != "cpu" or size.numel() > 1 or not _is_one_pixel(self):
        return _convolved(self, maps)
    # All positions of the kernel except one meet padding.
    top, left = padding_of(self)
    return linear(maps.flatten(1), self.weight[:, :, top, left], self.bias)[:, :, None, None]


def _is_one_pixel(layer: nn.Conv2d) -> bool:
    """True if a map of one pixel becomes a map of one pixel, and the kernel sees the pixel."""
    seen = all(pad < kernel for pad, kernel in zip(padding_of(layer), layer.kernel_size, strict=True))
    return seen and output_size(layer, (1, 1)) == (1, 1)


def _depthwise(self: nn.Conv2d, maps: Tensor) -> Tensor:
    size = maps.shape[-2:]
    if maps.device.type != "cpu" or size.numel() >= self.weight[0, 0].numel():
        return _convolved(self, maps)
    padding, out = _geometry(self, size)
    if size.numel() * math.prod(out) > _PAIRS:
        return _convolved(self, maps)
    places = _places(self.kernel_size, size, self.stride, padding, out)
    kernel = self.weight.flatten(1).t()
    # Position 0 represents the pixels that an output does not see.
    kernel = torch.cat([kernel.new_zeros(1, len(self.weight)), kernel]).to(maps.dtype)
    factors = kernel[torch.tensor(places, device=maps.device)].view(-1, size.numel(), len(self.weight))
    pixels = maps.permute(0, 2, 3, 1).flatten(1, 2).unsqueeze(1)
    sums: Tensor = (pixels * factors).sum(2)
    if self.bias is not None:
        sums = sums + self.bias.to(maps.dtype)
    return sums.view(len(maps), *out, len(self.weight)).permute(0, 3, 1, 2)


def _vgg_head(self: ConvMlp, maps: Tensor) -> Tensor:
    """A VGG's two hidden layers; timm enlarges small maps to 7 x 7 and convolves these with a 7 x 7 kernel.

    An enlarged map repeats each pixel. The sum of a pixel's weights, times the pixel, gives the same result.
    """
    height, width = maps.shape[-2:]
    whole = self.input_kernel_size
    if maps.device.type != "cpu" or max(height, width) >= whole or height * width > _POINTWISE:
        return ConvMlp.forward(self, maps)
    pixels = maps.permute(0, 2, 3, 1).flatten(1)
    first, second = self.fc1, self.fc2
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    hidden = linear(pixels, summed_weights(first.weight, height, width), first.bias)
    hidden = self.drop(self.act1(hidden))
    features: Tensor = self.act2(linear(hidden, second.weight.flatten(1), second.bias))
    return features[:, :, None, None]


def summed_weights(weight: Tensor, height: int, width: int) -> Tensor:
    """For each pixel of a small map, the sum of the weights that its copies meet after adaptive pooling.

    Args:
        weight: weight of a convolution, float32 ``(out, in, whole, whole)``.
        height: rows of the map before it is enlarged to ``whole × whole``.
        width: columns of that map.

    Returns:
        ``(out, height · width · in)``, to multiply pixels with the channels innermost.
    """
    pixels = torch.eye(height * width, device=weight.device, dtype=weight.dtype).view(-1, 1, height, width)
    enlarged = functional.adaptive_avg_pool2d(pixels, (weight.shape[-2], weight.shape[-1])).flatten(1)
    summed: Tensor = _Summed.apply(weight, enlarged)
    return summed


class _Summed(torch.autograd.Function):
    """Sums weights; the gradient has the weights' own memory layout, so that it is not copied.

    It computes in float32 under autocast too: casting all weights takes longer than summing them.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, enlarged: Tensor) -> Tensor:
        ctx.save_for_backward(weight, enlarged)
        with torch.autocast(weight.device.type, enabled=False):
            return torch.matmul(enlarged, _by_place(weight)).flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, towards: Tensor) -> tuple[Tensor, None]:
        weight, enlarged = ctx.saved_tensors
        by_pixel = towards.to(weight.dtype).view(len(weight), len(enlarged), -1)
        gradient = torch.empty_like(weight)
        places = gradient.permute(0, 2, 3, 1)
        places.copy_(torch.matmul(enlarged.t(), by_pixel).view_as(places))
        return gradient, None


def _by_place(weight: Tensor) -> Tensor:
    """A kernel as ``(out, whole · whole, in)``: a view if its channels are innermost."""
    return weight.permute(0, 2, 3, 1).flatten(1, 2)


def _convolved(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    made: Tensor = type(layer).forward(layer, maps)
    return made


Pair = tuple[int, int]


def _geometry(layer: nn.Conv2d, size: torch.Size) -> tuple[Pair, Pair]:
    """The rows above and the columns left of a map that its layer fills with zeros, and its output's size."""
    if type(layer) is not Conv2dSame:
        return padding_of(layer), output_size(layer, size)
    sides = list(zip(size, layer.kernel_size, layer.stride, strict=True))
    top, left = (get_same_padding(whole, kernel, step, 1) // 2 for whole, kernel, step in sides)
    height, width = (math.ceil(whole / step) for whole, _, step in sides)
    return (top, left), (height, width)


@cache
def _places(kernel: Pair, size: Pair, stride: Pair, padding: Pair, out: Pair) -> list[int]:
    """The kernel's position between each output and each pixel, from 1; 0 if there is no such position.

    The cache holds numbers, not a tensor, which might be made in inference mode and used in training.
    """
    places = []
    for y, x, row, column in product(*map(range, (*out, *size))):
        at = row - y * stride[0] + padding[0]
        across = column - x * stride[1] + padding[1]
        seen = 0 <= at < kernel[0] and 0 <= across < kernel[1]
        places.append(at * kernel[1] + across + 1 if seen else 0)
    return places
