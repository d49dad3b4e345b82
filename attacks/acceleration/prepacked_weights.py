"""Weights packed once for answers without gradients, on a CPU.

PyTorch's kernels for CPUs lay a layer's weights out anew in every pass. With few images that takes as long as
a good part of the arithmetic, and an attack that only asks for answers asks thousands of times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.module_surgery import input_shapes, put
from robustbench_tin.attacks.engine.calling import asked

# How far packed answers may be from the others, in units of their spread.
_MOST_APART = 1e-4


def pack(module: nn.Module, images: Tensor) -> bool:
    """Pack the weights of a module's convolutions and matrices, in place; it gives no gradients afterwards.

    Args:
        module: frozen, in eval mode, float32, on a CPU.
        images: a batch as it will be asked about; another number of images works, less quickly.

    Returns:
        False where it cannot be packed, or answers differently now: it is then good for nothing.
    """
    try:
        with torch.no_grad():
            expected = asked(module, images)
            _pack(module, images)
            apart = (expected - asked(module, images)).abs().max()
    except Exception:  # noqa: BLE001 - any model may come, and torch may lack what packs
        return False
    return bool(apart <= _MOST_APART * (expected.std() + 1e-12))


def _pack(module: nn.Module, images: Tensor) -> None:
    """Replace, in place, the layers that a pass goes through once."""
    # Not of kinds derived from them: those may do more.
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
