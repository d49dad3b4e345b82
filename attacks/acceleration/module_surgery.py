"""Looking at the layers of a model while it works, and putting others in their places."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.engine.calling import asked


def input_shapes(
    model: nn.Module, images: Tensor, wanted: Callable[[nn.Module], bool]
) -> dict[str, list[torch.Size]]:
    """The shapes of what each wanted layer is given in one pass, a shape a call, by the layer's name.

    Args:
        model: in eval mode; the whole of it is never a layer.
        images: what it is shown.
        wanted: which layers to look at.
    """
    seen: dict[str, list[torch.Size]] = {}

    def note(name: str, given: Tensor) -> None:
        seen.setdefault(name, []).append(given.shape)

    handles = [
        layer.register_forward_pre_hook(lambda _, given, name=name: note(name, given[0]))
        for name, layer in model.named_modules()
        if name and wanted(layer)
    ]
    try:
        with torch.no_grad():
            asked(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of that name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
