"""The device of the tests marked ``gpu``, and a trained network on it.

They run if there is a GPU. ``ROBUST_TIN_GPU_TESTS=cpu`` runs them on the CPU instead, which shows that the
tests themselves work; tests that only make sense on a GPU are skipped there, with a reason.
"""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import nn
from torch.nn import functional
from toys import TOY_CLASSES, Toy, draw_toy_images


@pytest.fixture(scope="session")
def device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if os.environ.get("ROBUST_TIN_GPU_TESTS") == "cpu":
        return torch.device("cpu")
    pytest.skip("no GPU here; ROBUST_TIN_GPU_TESTS=cpu runs these tests on the CPU")


@pytest.fixture
def gpu(device: torch.device) -> torch.device:
    """The device, for a test that only makes sense on a GPU."""
    if device.type != "cuda":
        pytest.skip("only a GPU can show this")
    return device


@pytest.fixture(scope="session")
def network() -> Toy:
    """On the CPU: a network with batch norm that has learned, and 96 images that it was not trained on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 16, TOY_CLASSES),
        )
    images, labels = draw_toy_images(320, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Toy(model.eval().requires_grad_(False), *draw_toy_images(96, seed=2))


@pytest.fixture(scope="session")
def there(network: Toy, device: torch.device) -> Toy:
    """The same network and images on the device."""
    model = copy.deepcopy(network.model).to(device)
    return Toy(model, network.images.to(device), network.labels.to(device))
