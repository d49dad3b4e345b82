"""FGSM against its formula, written down a second time."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from toys import Toy

from robustbench_tin import perturb
from robustbench_tin.attacks import Oracle, parse_attack
from robustbench_tin.metrics import in_top

EPS = (0.0, 1e-8, 2 / 255, 8 / 255, 0.5, 1.5)


@pytest.fixture
def gradient(toy: Toy) -> torch.Tensor:
    images = toy.images.clone().requires_grad_()
    loss = functional.cross_entropy(toy.model(images), toy.labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    return gradient


def test_linf_is_one_signed_step_cut_to_the_box(toy: Toy, gradient: torch.Tensor) -> None:
    for eps, moved in zip(EPS, perturb(toy.model, toy.images, toy.labels, "fgsm", EPS), strict=True):
        expected = (toy.images + eps * gradient.sign()).clamp(0, 1)
        assert (moved - expected).abs().max() <= 1.2e-7


def test_l2_is_one_step_along_the_gradient_cut_to_the_box(toy: Toy, gradient: torch.Tensor) -> None:
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    moved_by_eps = perturb(toy.model, toy.images, toy.labels, "fgsm", EPS, "l2")
    for eps, moved in zip(EPS, moved_by_eps, strict=True):
        expected = (toy.images + eps * gradient / length).clamp(0, 1)
        assert (moved - expected).abs().max() <= 1e-6


def test_one_gradient_serves_all_budgets(toy: Toy) -> None:
    with Oracle(toy.model) as oracle:
        parse_attack("fgsm").perturb(oracle, toy.images, toy.labels, EPS)
    assert (oracle.forward_passes, oracle.backward_passes) == (64, 64)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pixels_without_a_gradient_stay(norm: str) -> None:
    class LeftHalf(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen = images[..., :2].flatten(1).sum(dim=1, keepdim=True)
            return torch.cat([seen, -seen], dim=1)

    images = torch.full((1, 3, 4, 4), 0.5)
    moved = perturb(LeftHalf(), images, [0], "fgsm", 0.1, norm)[0]
    assert torch.equal(moved[..., 2:], images[..., 2:])
    assert (moved[..., :2] < images[..., :2]).all()


def test_it_fools_a_network_that_was_right(toy: Toy) -> None:
    clean, moved = perturb(toy.model, toy.images, toy.labels, "fgsm", (0.0, 0.1))
    with Oracle(toy.model) as oracle:
        assert in_top(oracle.logits(clean), toy.labels, k=1).float().mean() > 0.9
        assert in_top(oracle.logits(moved), toy.labels, k=1).float().mean() < 0.1
