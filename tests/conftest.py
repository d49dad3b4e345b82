"""What all rooms' tests share: tiny trained networks, drawn images, plugin files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import nn
from toys import TOY_CLASSES, Toy, draw_toy_images, trained_toy_model

from robustbench_tin import attacks, defenses

# The same examples each time; no example is given a time limit.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session")
def toy() -> Toy:
    """64 images that the network was not trained on; nothing may change the network."""
    return Toy(trained_toy_model(), *draw_toy_images(64, seed=2))


@pytest.fixture
def mixed_model() -> nn.Module:
    """Batch norm and dropout, some of it in train mode, one kernel frozen, one gradient kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=4, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(6 * 16, TOY_CLASSES),
        )
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[5].bias.grad = torch.full_like(model[5].bias, 0.25)
    return model


@pytest.fixture(autouse=True)
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test or its plugin registers is forgotten after it: which tests share a process is chance."""
    for registry in (attacks.registry, defenses.registry):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


@pytest.fixture
def write_plugin(tmp_path: Path) -> Callable[..., Path]:
    """Writes a plugin file from its text, and says where."""

    def write(text: str, name: str = "plugin.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
