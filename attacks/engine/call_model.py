"""The one place that calls a model: it gets a tensor of its own each time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def call_model(model: nn.Module, images: Tensor, *, channels_last: bool = False) -> Any:
    """The output of a model for images, of any type.

    The model gets a copy, so it may write into its input, for example to normalise it in place. With
    gradients enabled, the copy is part of the graph and not a leaf, which autograd would protect from writes.
    Gradients with respect to the given images are those of the same model without in-place operations.

    Args:
        model: the model.
        images: float32 ``(N, C, H, W)``.
        channels_last: True for a copy with the channels innermost; else it has the layout of the images.
    """
    layout = torch.channels_last if channels_last else torch.preserve_format
    return model(images.clone(memory_format=layout))
