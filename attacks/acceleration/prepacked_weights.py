"""Weights packed once, for forward passes without gradients on a CPU.

PyTorch's CPU kernels rearrange a layer's weights in every pass. With few images this takes as long as a good
part of the arithmetic, and a black-box attack makes thousands of forward passes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.module_surgery import input_shapes, put
from robustbench_tin.attacks.engine.call_model import call_model

# Largest distance between the logits with and without packing, in units of their spread.
_MOST_APART = 1e-4


def prepack_weights(model: nn.Module, images: Tensor) -> nn.Module:
    """The model with the weights of its convolutions and matrices packed, in place; it gives no gradients.

    Args:
        model: a copy, frozen, in eval mode, in float32, on a CPU.
        images: a batch of the usual size, float32 ``(N, C, H, W)``; other batch sizes work, but are slower.

    Raises:
        ValueError: if the packed model gives other logits; other errors if torch cannot pack it. The model is
            unusable then.
    """
    with torch.no_grad():
        expected = call_model(model, images)
        _pack(model, images)
        apart = (expected - call_model(model, images)).abs().max()
        if not bool(apart <= _MOST_APART * (expected.std() + 1e-12)):
            raise ValueError("the model with packed weights gives other logits")
    return model


def _pack(module: nn.Module, images: Tensor) -> None:
    """Replace, in place, the layers that are called once in a pass."""
    # No subclasses: they may do more.
    shapes = input_shapes(module, images, lambda layer: type(layer) in (nn.Conv2d, nn.Linear))
    for name, (shape, *others) in shapes.items():
        layer = module.get_submodule(name)
        if others:
            continue
        if isinstance(layer, nn.Linear) and len(shape) == 2:
            put(module, name, _PackedLinear(layer, shape))
        elif isinstance(layer, nn.Conv2d) and _pads_plainly(layer):
            put(module, name, _PackedConvolution(layer, shape))


def _pads_plainly(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


class _PackedConvolution(nn.Module):
    def __init__(self, layer: nn.Conv2d, shape: torch.Size) -> None:
        super().__init__()
        self.settings = layer.padding, layer.stride, layer.dilation, layer.groups
        self.bias = layer.bias
        weight = layer.weight.detach().contiguous()
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.settings, list(shape))

    def forward(self, maps: Tensor) -> Tensor:
        moved: Tensor = torch.ops.mkldnn._convolution_pointwise(
            maps, self.weight, self.bias, *self.settings, "none", [], ""
        )
        return moved


class _PackedLinear(nn.Module):
    def __init__(self, layer: nn.Linear, shape: torch.Size) -> None:
        super().__init__()
        self.bias = layer.bias
        weight = layer.weight.detach().contiguous()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, shape[0])

    def forward(self, rows: Tensor) -> Tensor:
        moved: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        return moved
