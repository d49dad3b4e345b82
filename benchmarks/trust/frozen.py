"""A model with the same random numbers at every call, so that its logits and gradients can be compared."""

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

    The random numbers of an image depend on the shape of the batch and on the image's place in it. So compare
    only batches of the same shape, and images in the same place.

    Args:
        model: maps float32 pixels in [0, 1] to logits.

    Attributes:
        draw: seed of the random numbers; another value gives other random numbers.
        drew: whether the model has drawn random numbers since this was last set to False.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.draw = 0
        self.drew = False

    def forward(self, images: Tensor) -> Any:
        """The model's output for images ``(N, C, H, W)``."""
        seed_randomness(images.device, "look", self.draw)
        before = None if self.drew else random_state(images.device)
        answer = self.model(images)
        self.drew = self.drew or random_state(images.device) != before
        return answer


class ProbedModel:
    """A model under the probe: its random numbers are frozen and every pass is counted.

    Args:
        model: maps float32 pixels in [0, 1] to logits.

    Attributes:
        attacked: the attacked model of the frozen model; enter it as a context manager before any call.
    """

    def __init__(self, model: nn.Module) -> None:
        self._frozen = FrozenModel(model)
        self.attacked = AttackedModel(self._frozen)

    @property
    def draws(self) -> bool:
        """Whether the model takes random numbers from torch, NumPy or Python in a forward pass."""
        return self._frozen.drew

    def modules(self) -> Iterator[nn.Module]:
        """The model and all its submodules."""
        return self._frozen.model.modules()

    @contextmanager
    def drawing(self, draw: int) -> Iterator[None]:
        """Context manager: inside, the model draws other random numbers.

        Args:
            draw: seed of the random numbers; 0 gives the usual ones.
        """
        self._frozen.draw = draw
        try:
            yield
        finally:
            self._frozen.draw = 0

    def logits(self, images: Tensor) -> Tensor:
        """Logits of one batch, float32 ``(N, C)``, without a graph."""
        return self.attacked.logits(images)

    def gradient(self, images: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient of a value of each image with respect to its pixels.

        Args:
            images: one batch, float32 ``(N, C, H, W)``.
            value: maps logits ``(N, C)`` to one value for each image, ``(N,)``.

        Returns:
            ``(N, C, H, W)``; zero if the value does not depend on the pixels. It may hold non-finite values.
        """
        with torch.enable_grad():
            variable = images.clone().requires_grad_()
            logits = self.attacked.called(variable)
            assert isinstance(logits, Tensor)
            (gradient,) = torch.autograd.grad(value(logits.float()).sum(), variable, allow_unused=True)
        self.attacked.backward_passes += len(images)
        return torch.zeros_like(images) if gradient is None else gradient
