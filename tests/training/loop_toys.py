"""Parts that tests of the loop share: a network with batch norm and dropout, and images to train it on."""

from __future__ import annotations

import torch
from torch import nn
from toys import TOY_CLASSES, draw_toy_images

from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense
from robustbench_tin.defenses.base import Defense
from robustbench_tin.runtime import Runtime
from robustbench_tin.training.loop import Recipe, TrainingRecord, train


def split_of(count: int, seed: int = 1) -> Split:
    images, labels = draw_toy_images(count, seed)
    return Split((images * 255).round().byte().numpy(), labels.numpy())


def build_full_model(seed: int = 0) -> nn.Module:
    """Convolutions, batch norm, dropout and two matrices: all that a checkpoint has to bring back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=4, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(32, 16),
            nn.ReLU(),
            nn.Linear(16, TOY_CLASSES),
        )


def trained_full(
    recipe: Recipe,
    defense: Defense | str = "none",
    *,
    images: int = 64,
    model: nn.Module | None = None,
    **options,
) -> tuple[nn.Module, TrainingRecord]:
    model = model or build_full_model()
    record = train(
        model,
        split_of(images),
        parse_defense(defense) if isinstance(defense, str) else defense,
        recipe,
        Runtime("cpu"),
        num_classes=TOY_CLASSES,
        seed=options.pop("seed", 0),
        **options,
    )
    return model, record


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Parameters, running statistics and counters, bit for bit."""
    theirs = other.state_dict()
    for name, value in one.state_dict().items():
        assert torch.equal(value, theirs[name]), name
