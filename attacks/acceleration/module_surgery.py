"""Copying a model, looking at its layers in a forward pass, and replacing layers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.engine.call_model import call_model


def independent_copy(model: nn.Module) -> nn.Module:
    """A copy that shares no module and no tensor with the model.

    Raises:
        TypeError: if the model's copies share parts with it: a change of the copy would change the model.
    """
    twin = copy.deepcopy(model)
    if not _parts(twin).isdisjoint(_parts(model)):
        raise TypeError("the model's copy shares modules or weights with it")
    return twin


def _parts(model: nn.Module) -> set[int]:
    return {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}


def input_shapes(
    model: nn.Module, images: Tensor, wanted: Callable[[nn.Module], bool]
) -> dict[str, list[torch.Size]]:
    """Input shapes of layers in one forward pass, by the layer's name; one shape a call.

    Args:
        model: in eval mode; it does not count as one of its layers.
        images: input of the pass.
        wanted: True for each layer to look at.
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
            call_model(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Replace the layer of this name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
