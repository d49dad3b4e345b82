"""A model's outputs in the order of a data set's classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustbench_tin.devices import device_of, images_device


class OrderedOutputs(nn.Module):
    """A model whose outputs are reordered.

    Args:
        model: maps pixels in [0, 1] to logits ``(N, C)``.
        order: for each position, the number of the output that goes there; C numbers.
    """

    order: Tensor

    def __init__(self, model: nn.Module, order: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        device = images_device(device_of(model))
        self.register_buffer("order", torch.tensor(order, device=device), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)`` in the new order."""
        logits: Tensor = self.model(images)
        return logits[:, self.order]
