"""The one place where a model is called: it gets a tensor of its own each time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def asked(model: nn.Module, images: Tensor, *, channels_last: bool = False) -> Any:
    """The answer of a model to images, whatever it is.

    The model gets a copy, so it may write into its input (an in-place normalisation, say) and harms neither
    the caller's images nor the point that an attack stands at. With gradients enabled the copy is part of
    the graph: it is no leaf, which autograd would protect from being written to, and gradients with respect
    to the images given are those of the same model out of place.

    Args:
        model: what is asked.
        images: float32 ``(N, C, H, W)``.
        channels_last: whether the copy has its channels innermost; else it is laid out as the images are.
    """
    layout = torch.channels_last if channels_last else torch.preserve_format
    return model(images.clone(memory_format=layout))
