"""A defense with a small training set; the contract's rules train with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_tin.data.base import Split
from robustbench_tin.defenses.base import Defense
from robustbench_tin.runtime import Runtime
from robustbench_tin.testing.toy import TOY_CLASSES, build_toy_model, draw_toy_images
from robustbench_tin.training.context import Context
from robustbench_tin.training.loop import Recipe, train

_IMAGES = 24


def small_split() -> Split:
    """24 toy images with bounding boxes, in the form of a training set."""
    images, labels = draw_toy_images(_IMAGES, seed=5)
    boxes = np.tile(np.array([2, 3, 12, 10], np.int32), (_IMAGES, 1))
    return Split((images * 255).round().byte().numpy(), labels.numpy(), boxes)


def context_of(seed: int) -> Context:
    """The state at the start of a training of one epoch on the CPU."""
    return Context(
        torch.Generator().manual_seed(seed),
        torch.device("cpu"),
        TOY_CLASSES,
        epochs=1,
        note=lambda line: None,
        trained=_other_model,
    )


def _other_model(name: str) -> nn.Module:
    return build_toy_model(7)


@dataclass(frozen=True)
class DefenseCase:
    """The case that a rule checks.

    Attributes:
        defense: the defense, or a combination of several.
        split: a training set with boxes.
    """

    defense: Defense
    split: Split = field(default_factory=small_split)

    def batch(self) -> tuple[Tensor, Tensor]:
        """The training set as one batch: float32 ``(N, 3, 16, 16)`` in [0, 1], int64 ``(N,)``."""
        return torch.from_numpy(self.split.images).float() / 255, torch.from_numpy(self.split.labels.copy())

    def weights_after_training(self, seed: int) -> tuple[Tensor, int]:
        """All weights after one epoch, in one vector, and the number of steps."""
        model = build_toy_model()
        record = train(
            model,
            self.split,
            self.defense,
            Recipe(epochs=1, batch_size=_IMAGES // 2, lr=1e-2),
            Runtime("cpu"),
            num_classes=TOY_CLASSES,
            seed=seed,
            trained=_other_model,
        )
        return flat_weights(model), record.steps


def flat_weights(model: nn.Module) -> Tensor:
    """All weights in one vector."""
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])
