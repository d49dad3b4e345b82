"""FGSM against its formula, written down a second time."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from toys import Toy

from robustbench_tin import perturb
from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.metrics import in_top
from robustbench_tin.threat import ThreatModel

EPS = (0.0, 1e-8, 2 / 255, 8 / 255, 0.5, 1.0)


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
    with AttackedModel(toy.model) as attacked:
        perturb_images(parse_attack("fgsm"), attacked, toy.images, toy.labels, EPS)
    assert (attacked.forward_passes, attacked.backward_passes) == (64, 64)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pixels_without_a_gradient_stay(norm: str) -> None:
    class LeftHalf(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen = images[..., :2].flatten(1).sum(dim=1, keepdim=True)
            return torch.cat([seen, -seen], dim=1)

    images = torch.full((1, 3, 4, 4), 0.5)
    moved = perturb(LeftHalf(), images, [0], "fgsm", 0.1, norm)
    assert torch.equal(moved[..., 2:], images[..., 2:])
    assert (moved[..., :2] < images[..., :2]).all()


def test_it_fools_a_network_that_was_right(toy: Toy) -> None:
    clean, moved = perturb(toy.model, toy.images, toy.labels, "fgsm", (0.0, 0.1))
    with AttackedModel(toy.model) as attacked:
        assert in_top(attacked.logits(clean), toy.labels, k=1).float().mean() > 0.9
        assert in_top(attacked.logits(moved), toy.labels, k=1).float().mean() < 0.1


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("setting", "step"), [("", 1.25 * 0.05), (",alpha=0.02", 0.02)])
def test_from_a_random_start_it_is_one_step_from_there(
    toy: Toy, norm: str, setting: str, step: float
) -> None:
    ball = ThreatModel(norm, 0.05).ball(toy.images)
    start = ball.random(torch.Generator().manual_seed(3)).requires_grad_()
    loss = functional.cross_entropy(toy.model(start), toy.labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, start)
    expected = ball.project(start.detach() + step * ball.direction(gradient))
    attack = parse_attack(f"fgsm:random_start=true{setting}")
    with AttackedModel(toy.model) as attacked:
        moved = perturb_images(attack, attacked, toy.images, toy.labels, [0.05], norm=norm, seed=3)[0]
    assert ((moved - expected).abs() > 1e-6).float().mean() <= 1e-3


def test_from_a_random_start_it_keeps_the_accuracy_that_torchattacks_keeps(toy: Toy) -> None:
    torchattacks = pytest.importorskip("torchattacks")

    def kept(images: torch.Tensor) -> float:
        with AttackedModel(toy.model) as attacked:
            return float(in_top(attacked.logits(images), toy.labels, k=1).float().mean())

    eps = 8 / 255
    spec = "fgsm:random_start=true"
    ours = [kept(perturb(toy.model, toy.images, toy.labels, spec, eps, seed=seed)) for seed in range(6)]
    theirs = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(6):
            attack = torchattacks.FFGSM(toy.model, eps=eps, alpha=1.25 * eps)
            theirs.append(kept(attack(toy.images, toy.labels)))
    assert 0.1 < sum(ours) / 6 < 0.9
    assert abs(sum(ours) - sum(theirs)) / 6 <= 2 / 64


def test_a_random_start_takes_a_gradient_for_each_budget(toy: Toy) -> None:
    attack = parse_attack("fgsm:random_start=true")
    with AttackedModel(toy.model) as attacked:
        perturb_images(attack, attacked, toy.images, toy.labels, (0.0, 0.01, 0.02))
    assert (attacked.forward_passes, attacked.backward_passes) == (2 * 64, 2 * 64)
    assert attack.gradients(2) == 2


def test_a_step_of_its_own_length_still_takes_one_gradient(toy: Toy) -> None:
    with AttackedModel(toy.model) as attacked:
        moved = perturb_images(parse_attack("fgsm:alpha=0.01"), attacked, toy.images, toy.labels, (0.02, 0.1))
    assert (attacked.forward_passes, attacked.backward_passes) == (64, 64)
    assert torch.equal(moved[0], moved[1])
    assert (moved[0] - toy.images).abs().max() == pytest.approx(0.01, abs=1e-6)


@pytest.mark.parametrize("setting", ["alpha=0", "alpha=-1", "alpha=inf"])
def test_settings_out_of_range_are_refused_by_name(setting: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"attack 'fgsm' got alpha="):
        parse_attack(f"fgsm:{setting}")
