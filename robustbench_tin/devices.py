"""Devices without float64: the network runs there, and the images stay on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

# Apple's GPU has no float64, which the verification of adversarial images needs. It shares its memory with
# the CPU, so moving a batch costs little compared with the network's passes.
WITHOUT_FLOAT64 = frozenset({"mps"})


def images_device(device: str | torch.device) -> torch.device:
    """The device of a network's images: the same device, or the CPU if that device lacks float64."""
    found = torch.device(device)
    return torch.device("cpu") if found.type in WITHOUT_FLOAT64 else found


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter or buffer; the CPU if it has neither."""
    first = next(iter([*model.parameters(), *model.buffers()]), None)
    return torch.device("cpu") if first is None else first.device


def taking_images(model: nn.Module) -> nn.Module:
    """The model for images on their device, wrapped in :class:`MovedImages` if its device lacks float64."""
    moves = getattr(model, "moves_images", False)
    return model if moves or device_of(model).type not in WITHOUT_FLOAT64 else MovedImages(model)


class MovedImages(nn.Module):
    """A model on another device than its images: it moves the images there, and its output back.

    Args:
        model: maps pixels in [0, 1] to logits.
    """

    moves_images = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        """The model's output, on the device of the images."""
        answer = self.model(images.to(device_of(self.model)))
        return pytree.tree_map_only(Tensor, lambda part: part.to(images.device), answer)
