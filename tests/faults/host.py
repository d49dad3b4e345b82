"""An honest network in which faults are planted, and other networks made of its kind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import draw_toy_images, train_toy_model

T = TypeVar("T")

Loss = Callable[[Tensor, Tensor], Tensor]

_BATCH = 128
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish)


@dataclass(frozen=True)
class Host:
    """An honest network with the images that it was trained on.

    Attributes:
        network: float32 pixels ``(N, 3, H, W)`` in [0, 1] to logits ``(N, classes)``, in eval mode.
        images: training images, float32 ``(M, 3, H, W)``.
        labels: of them, int64 ``(M,)``.
        others: networks trained on the same classes; if there are none, one is trained on demand.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    others: list[nn.Module] = field(default_factory=list)
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def classes(self) -> int:
        """The number of logits."""
        with torch.no_grad():
            return self.network(self.images[:1]).shape[1]

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.images.shape[-1]

    @property
    def pixels(self) -> int:
        """Values an image."""
        return self.images[0].numel()

    def once(self, make: Callable[[Host], T]) -> T:
        """The result of a function on this host: made at its first call, the same at each later one."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]

    def copy(self) -> nn.Module:
        """The network once more, to be changed and trained."""
        return copy.deepcopy(self.network).requires_grad_(True)

    def activated(self, make: Callable[[], nn.Module]) -> nn.Module:
        """A copy of the network with another module in the place of each activation."""
        network = self.copy()
        for name, module in list(network.named_modules()):
            if isinstance(module, _ACTIVATIONS):
                parent, _, child = name.rpartition(".")
                setattr(network.get_submodule(parent), child, make())
        return network

    def untrained(self, seed: int = 0) -> nn.Module:
        """A network of the same kind with new random weights."""
        network = self.copy()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in network.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
        return network.eval()

    def another(self) -> nn.Module:
        """Another trained network; the same one at each call."""
        if not self.others:
            self.others.append(self.fitted(self.untrained(seed=1), steps=60))
        return self.others[0]

    def split(self) -> tuple[nn.Module, nn.Linear]:
        """Copies of the network without its last linear layer, and of that layer."""
        body = self.copy()
        name, head = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.Linear)][-1]
        parent, _, child = name.rpartition(".")
        setattr(body.get_submodule(parent), child, nn.Identity())
        return body, head

    def fitted(
        self,
        model: nn.Module,
        *,
        steps: int = 30,
        rate: float = 5e-3,
        seed: int = 0,
        loss: Loss | None = None,
    ) -> nn.Module:
        """The model after some steps of Adam on the training images; it is changed in place.

        Args:
            model: to be trained.
            steps: of batches of 128 images.
            rate: of the optimizer.
            seed: of the batches and of the model's draws.
            loss: of logits and labels; None: the cross-entropy.
        """
        optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=rate)
        model.train()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            for images, labels in self.batches(steps, seed):
                optimizer.zero_grad()
                (loss or functional.cross_entropy)(model(images), labels).backward()
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return model.eval()

    def batches(self, steps: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of 128 training images, drawn with a seed."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            rows = torch.randint(len(self.images), (_BATCH,), generator=generator)
            yield self.images[rows], self.labels[rows]


@cache
def toy_host() -> Host:
    """The toy network of the tests, and 1,280 training images of its ten classes."""
    return Host(train_toy_model(), *draw_toy_images(1_280, seed=1))
