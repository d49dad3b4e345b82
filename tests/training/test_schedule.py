"""Learning rates, optimisers, and which parameters they treat alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_tin.training.optimiser import build_optimizer, parameter_groups, set_rate
from robustbench_tin.training.recipe import Recipe
from robustbench_tin.training.schedule import SCHEDULES, one_cycle
from robustbench_tin.training.stages import Stage


def rates(name: str, steps: int, warmup: float = 0.25) -> list[float]:
    return [SCHEDULES[name](step, steps, warmup) for step in range(steps)]


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 400])
@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.9])
def test_the_cycle_rises_once_and_falls_once(steps: int, warmup: float) -> None:
    cycle = rates("one-cycle", steps, warmup)
    peak = int(np.argmax(cycle))
    assert all(0 < rate <= 1 for rate in cycle)
    assert cycle[: peak + 1] == sorted(cycle[: peak + 1])
    assert cycle[peak:] == sorted(cycle[peak:], reverse=True)


def test_the_cycles_landmarks() -> None:
    cycle = rates("one-cycle", 400)
    assert cycle[0] == pytest.approx(1 / 101)
    assert cycle[100] == 1
    assert cycle[250] == pytest.approx(0.5)
    assert cycle[399] < 1e-4
    assert one_cycle(400, 400, 0.25) == pytest.approx(0)


def test_the_other_schedules_landmarks() -> None:
    cosine, step = rates("cosine", 400), rates("step", 400)
    assert (cosine[0], cosine[200]) == (1, pytest.approx(0.5))
    assert 0 < cosine[399] < 1e-4
    assert cosine == sorted(cosine, reverse=True)
    assert set(rates("constant", 400)) == {1}
    assert [step[k] for k in (0, 199, 200, 299, 300, 399)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_only_kernels_and_matrices_decay_and_frozen_ones_are_left_out() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    recipe = Recipe(1, 10, 0.1, head_rate=8)
    assert parameter_groups(model, recipe, Stage("all", 1, 0.5)) == [
        {"params": [model[0].weight], "weight_decay": 0.05, "peak": 0.05},
        {"params": [model[1].weight, model[1].bias], "weight_decay": 0.0, "peak": 0.05},
        {"params": [model[3].weight], "weight_decay": 0.05, "peak": 0.4},
        {"params": [model[3].bias], "weight_decay": 0.0, "peak": 0.4},
    ]


def test_each_group_follows_the_schedule_from_its_own_peak() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    recipe = Recipe(1, 10, 0.1, schedule="cosine", head_rate=2)
    optimizer = build_optimizer(model, recipe, Stage("all", 1))
    set_rate(optimizer, recipe, 50, 100)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.05, 0.1, 0.1])


@pytest.mark.parametrize(("name", "decay"), [("adamw", 0.05), ("adam", 0.0), ("sgd", 5e-4)])
def test_the_optimiser_is_the_one_asked_for(name: str, decay: float) -> None:
    optimizer = build_optimizer(nn.Linear(4, 2), Recipe(1, 10, 0.1, optimizer=name), Stage("all", 1))
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    assert type(optimizer) is kinds[name]
    assert optimizer.param_groups[0]["weight_decay"] == decay
    if name == "sgd":
        assert optimizer.defaults["nesterov"]
        assert optimizer.defaults["momentum"] == 0.9
