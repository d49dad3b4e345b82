"""Optimisers, against torch's plain loop over parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from robustbench_tin.training.optimiser import build_optimizer
from robustbench_tin.training.recipe import Recipe

KINDS = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1, foreach=False),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.1, foreach=False),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, foreach=False),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("gradients", [torch.contiguous_format, torch.channels_last])
def test_steps_do_not_depend_on_the_memory_layout(
    kind: str, weights: torch.memory_format, gradients: torch.memory_format
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(5, 2))
    network.get_submodule("3").is_head = True  # type: ignore[assignment]
    plain = copy.deepcopy(network)
    network = network.to(memory_format=weights)  # type: ignore[call-overload]
    recipe = Recipe(1, 4, 0.1, optimizer=kind, weight_decay=0.01)
    ours = build_optimizer(network, recipe, recipe.stages[0])
    theirs = KINDS[kind](
        [
            {
                "params": [each for each in plain.parameters() if (each.ndim > 1) == decays],
                "weight_decay": decay,
            }
            for decays, decay in ((True, 0.01), (False, 0.0))
        ]
    )
    for _ in range(3):
        for one, other in zip(network.parameters(), plain.parameters(), strict=True):
            gradient = torch.randn_like(other, memory_format=torch.contiguous_format)
            other.grad = gradient
            one.grad = gradient.contiguous(memory_format=gradients) if gradient.ndim == 4 else gradient
        ours.step()
        theirs.step()
    for one, other in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert all(each.grad is not None for each in network.parameters())
