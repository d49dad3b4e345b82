"""FGSM adversarial training against Wong, Rice and Kolter's step, written down a second time."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from defense_toys import Fed, context_of
from torch import Tensor, nn
from torch.nn import functional
from toys import Toy, build_toy_model

from robustbench_tin.defenses import parse_defense
from robustbench_tin.threat import LinfBall


def fast_step(
    model: nn.Module, images: Tensor, labels: Tensor, delta: Tensor, eps: float, alpha: float
) -> Tensor:
    """Their algorithm 3, on the change: move, cut to the ball, cut to the box, train on the result."""
    delta = delta.clone().requires_grad_()
    functional.cross_entropy(model(images + delta), labels).backward()
    moved = (delta.detach() + alpha * delta.grad.sign()).clamp(-eps, eps)
    moved = torch.max(torch.min(moved, 1 - images), 0 - images)
    return functional.cross_entropy(model(images + moved), labels)


@pytest.mark.parametrize(
    ("spec", "eps", "alpha"),
    [
        ("fgsm-at", 8 / 255, 10 / 255),
        ("fgsm-at:eps=16/255", 16 / 255, 20 / 255),
        ("fgsm-at:alpha=0.01,eps=0.05", 0.05, 0.01),
    ],
)
def test_the_loss_and_its_gradient_are_those_of_the_paper(
    toy: Toy, spec: str, eps: float, alpha: float
) -> None:
    model, by_hand = build_toy_model(), build_toy_model()
    loss = parse_defense(spec).loss(model, toy.images, toy.labels, context_of(4))
    start = LinfBall(toy.images, eps).random(torch.Generator().manual_seed(4))
    expected = fast_step(by_hand, toy.images, toy.labels, start - toy.images, eps, alpha)
    by_hand.zero_grad()
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for weight, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(weight.grad, other.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("eps", [1e-8, 8 / 255, 0.5])
def test_what_the_network_is_fed_stays_in_the_ball_and_the_box(toy: Toy, eps: float) -> None:
    images = toy.images.clone()
    images[:4], images[4:8] = 0, 1
    model = Fed(build_toy_model())
    parse_defense(f"fgsm-at:eps={eps}").loss(model, images, toy.labels, context_of(0))
    assert len(model.shown) == 2
    for shown in model.shown:
        assert float((shown.double() - images.double()).abs().max()) <= eps
        assert float(shown.min()) >= 0
        assert float(shown.max()) <= 1


def test_the_step_makes_the_images_harder(toy: Toy) -> None:
    model = Fed(toy.model)
    loss = parse_defense("fgsm-at").loss(model, toy.images, toy.labels, context_of(0))
    with torch.no_grad():
        at_the_start = functional.cross_entropy(toy.model(model.shown[0]), toy.labels)
    assert loss.item() > 2 * at_the_start.item()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_only_the_second_pass_moves_the_weights(toy: Toy, precision: torch.dtype) -> None:
    """Also in lower precision: autocast keeps cast weights from the first pass for the second."""
    model = build_toy_model()
    lower = nullcontext() if precision == torch.float32 else torch.autocast("cpu", precision)
    with lower:
        loss = parse_defense("fgsm-at").loss(model, toy.images, toy.labels, context_of(0))
    assert all(weight.grad is None for weight in model.parameters())
    loss.backward()
    assert all(float(weight.grad.abs().max()) > 0 for weight in model.parameters())
