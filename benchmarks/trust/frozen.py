"""A model with the same random numbers at every call, so that its answers can be compared and derived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.base import AttackedModel
from robustbench_tin.attacks.engine.rng import random_state, seed_randomness


class FrozenModel(nn.Module):
    """A model with the same random numbers at every call.

    What a model draws for an image depends on the shape of the batch and on the image's place in it: compare
    batches of one shape, and images in one place.

    Args:
        model: float32 pixels in [0, 1] to logits.

    Attributes:
        draw: another number gives other random numbers.
        drew: whether the model has drawn any since this was last set to False.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.draw = 0
        self.drew = False

    def forward(self, images: Tensor) -> Any:
        """What the model returns for images ``(N, C, H, W)``."""
        seed_randomness(images.device, "look", self.draw)
        before = None if self.drew else random_state(images.device)
        answer = self.model(images)
        self.drew = self.drew or random_state(images.device) != before
        return answer


class ProbedModel:
    """A model that is looked into: frozen, every pass counted.

    Args:
        model: float32 pixels in [0, 1] to logits.

    Attributes:
        attacked: of the frozen model; enter it first.
    """

    def __init__(self, model: nn.Module) -> None:
        self._frozen = FrozenModel(model)
        self.attacked = AttackedModel(self._frozen)

    @property
    def draws(self) -> bool:
        """Whether the model takes random numbers from torch, NumPy or Python as it answers."""
        return self._frozen.drew

    def modules(self) -> Iterator[nn.Module]:
        """The model and all that it is made of."""
        return self._frozen.model.modules()

    @contextmanager
    def drawing(self, draw: int) -> Iterator[None]:
        """Inside, the model draws other random numbers."""
        self._frozen.draw = draw
        try:
            yield
        finally:
            self._frozen.draw = 0

    def logits(self, images: Tensor) -> Tensor:
        """Logits of one batch, float32 ``(N, C)``, without a graph."""
        return self.attacked.logits(images)

    def gradient(self, images: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
        """Gradient of each image's own value, ``(N, C, H, W)``; zero if no pixel leads to the value.

        It may hold values that are not finite.

        Args:
            images: one batch, float32 ``(N, C, H, W)``.
            value: from logits ``(N, C)`` to a value each ``(N,)``.
        """
        with torch.enable_grad():
            variable = images.clone().requires_grad_()
            logits = self.attacked.called(variable)
            assert isinstance(logits, Tensor)
            (gradient,) = torch.autograd.grad(value(logits.float()).sum(), variable, allow_unused=True)
        self.attacked.backward_passes += len(images)
        return torch.zeros_like(images) if gradient is None else gradient
