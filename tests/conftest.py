"""Fixtures that all rooms' tests share: tiny trained networks, drawn images, plugin files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from torch import nn
from toys import Toy, draw_toy_images, train_toy_model

from robustbench_tin import attacks, defenses
from robustbench_tin.testing.models import build_mixed_model

# The same examples each time; no example is given a time limit.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session")
def toy() -> Toy:
    """64 images that the network was not trained on; nothing may change the network."""
    return Toy(train_toy_model(), *draw_toy_images(64, seed=2))


@pytest.fixture
def mixed_model() -> nn.Module:
    """Batch norm and dropout, some of it in train mode, one kernel frozen, one gradient kept."""
    return build_mixed_model()


@pytest.fixture(autouse=True)
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget a test's registered names after it: chance decides which tests share a process."""
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
