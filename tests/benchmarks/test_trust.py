"""Trust checks: every planted fault is flagged, and no honest model is."""

from __future__ import annotations

from functools import cache

import pandas as pd
import pytest
import torch
from planted_faults import FAULTS, Fault
from torch import Tensor, nn
from torch.nn import functional
from toys import Toy, build_toy_model, draw_toy_images

from robustbench_tin import evaluate
from robustbench_tin.threat import ThreatModel

EPS = {"linf": (0.0, 0.01, 0.03), "l2": (0.0, 0.15, 0.5)}


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    """As files hold them."""
    drawn, labels = draw_toy_images(160, seed=2)
    return (drawn * 255).round() / 255, labels


@cache
def honest(seed: int, training_eps: float) -> nn.Module:
    """A toy trained plainly, or on images of three steps of PGD."""
    model = build_toy_model(seed)
    images, labels = draw_toy_images(160, seed=100 + seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        moved = images
        ball = ThreatModel("linf", training_eps).ball(images)
        for step in range(3 if training_eps > 0 else 0):
            moved = (ball.random(generator) if step == 0 else moved).requires_grad_()
            (gradient,) = torch.autograd.grad(functional.cross_entropy(model(moved), labels), moved)
            moved = ball.project(moved.detach() + training_eps / 2 * gradient.sign())
        optimizer.zero_grad()
        functional.cross_entropy(model(moved), labels).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_flagged(toy: Toy, images: tuple[Tensor, Tensor], fault: Fault) -> None:
    frame = evaluate(fault.plant(toy.model), *images, fault.attacks, EPS["linf"], trust=True)
    assert (frame["status"] == "ok").all()
    attacked = frame[(frame["attack"] == fault.flagged) & (frame["eps"] == 0.03)]
    (verdict,) = attacked["trust"]
    print(fault.name, frame[["attack","eps","top1","trust"]].values.tolist())
    assert verdict != "ok"
    assert fault.says in verdict


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("training_eps", [0.0, 0.03])
@pytest.mark.parametrize("seed", range(5))
def test_an_honest_model_is_not_flagged(
    images: tuple[Tensor, Tensor], seed: int, training_eps: float, norm: str
) -> None:
    frame = evaluate(honest(seed, training_eps), *images, "fgsm,pgd,noise", EPS[norm], norm, trust=True)
    attacked = frame[frame["attack"] != "clean"]
    assert len(attacked) == 6
    assert attacked["learned"].all()
    assert attacked["trust"].tolist() == ["ok"] * 6
