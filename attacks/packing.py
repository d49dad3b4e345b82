"""Weights packed once for answers without gradients, on a CPU.

PyTorch's kernels for CPUs lay a layer's weights out anew in every pass. With few images that takes as long as
a good part of the arithmetic, and an attack that only asks for answers asks thousands of times.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

# How far packed answers may be from the others, in units of their spread.
_MOST_APART = 1e-4


def packed(module: nn.Module, images: Tensor) -> nn.Module | None:
    """A copy of a module whose convolutions and matrices are packed; it gives no gradients.

    Args:
        module: frozen, in eval mode, float32, on a CPU.
        images: a batch as it will be asked about; another number of images works, less quickly.

    Returns:
        None where the module cannot be copied, or its copy answers differently.
    """
    try:
        twin = copy.deepcopy(module)
        with torch.no_grad():
            _pack(twin, images)
            expected, found = module(images), twin(images)
            apart = (expected - found).abs().max()
    except Exception:  # noqa: BLE001 - any model may come, and torch may lack what packs
        return None
    return twin if bool(apart <= _MOST_APART * (expected.std() + 1e-12)) else None


def _pack(module: nn.Module, images: Tensor) -> None:
    """Replace, in place, the layers that a pass goes through once."""
    seen: dict[str, list[torch.Size]] = {}

    def note(name: str, given: Tensor) -> None:
        seen.setdefault(name, []).append(given.shape)

    handles = [
        layer.register_forward_pre_hook(lambda _, given, name=name: note(name, given[0]))
        for name, layer in module.named_modules()
        # Not of kinds derived from them: those may do more.
        if name and type(layer) in (nn.Conv2d, nn.Linear)
    ]
    try:
        module(images)
    finally:
        for handle in handles:
            handle.remove()
    for name, shapes in seen.items():
        layer = module.get_submodule(name)
        replacement: nn.Module | None = None
        if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
            replacement = None if isinstance(layer.padding, str) else _PackedConvolution(layer, shapes[0])
        elif isinstance(layer, nn.Linear) and len(shapes[0]) == 2:
            replacement = _PackedLinear(layer, shapes[0])
        if replacement is not None and len(shapes) == 1:
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, replacement)


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
