"""Noise: its distributions, and the accuracy it leaves beside foolbox's noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import Toy

from robustbench_tin import perturb
from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.errors import InvalidSettingError

GREY = torch.full((40, 3, 16, 16), 0.5)
LABELS = torch.zeros(40, dtype=torch.int64)


def change(toy: Toy, spec: str, eps: float, norm: str) -> torch.Tensor:
    return (perturb(toy.model, GREY, LABELS, spec, eps, norm) - GREY).flatten(1)


def test_uniform_linf_noise_fills_the_ball(toy: Toy) -> None:
    values = change(toy, "noise", 0.1, "linf") / 0.1
    counts = torch.histc(values, bins=10, min=-1, max=1)
    assert counts.sum() == values.numel()
    assert (counts / values.numel()).sub(0.1).abs().max() < 0.01


def test_uniform_l2_noise_fills_the_ball(toy: Toy) -> None:
    """The part of the ball's volume inside each point is uniform in [0, 1]."""
    volume = (change(toy, "noise", 0.5, "l2").norm(dim=1).double() / 0.5) ** 768
    assert volume.mean() == pytest.approx(0.5, abs=0.15)
    assert volume.std() == pytest.approx(12**-0.5, abs=0.1)


def test_gaussian_linf_noise_has_eps_as_its_deviation_and_is_cut_there(toy: Toy) -> None:
    values = change(toy, "noise:distribution=gaussian", 0.1, "linf")
    at_edge = (values.abs() > 0.0999).float().mean()
    assert at_edge == pytest.approx(0.3173, abs=0.01)  # beyond one standard deviation
    assert values.std() == pytest.approx(0.1 * 0.7184, rel=0.02)  # of a normal variable cut at ±1


def test_gaussian_l2_noise_is_as_long_as_the_ball_is_wide(toy: Toy) -> None:
    lengths = change(toy, "noise:distribution=gaussian", 0.5, "l2").norm(dim=1)
    assert torch.allclose(lengths, torch.tensor(0.5), atol=1e-5)


def margins(toy: Toy, images: torch.Tensor) -> torch.Tensor:
    with AttackedModel(toy.model) as attacked:
        return parse_attack("noise").goal.margin(attacked.logits(images), toy.labels)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_several_draws_the_worst_counts(toy: Toy, norm: str) -> None:
    one, five = (
        perturb(toy.model, toy.images, toy.labels, f"noise:restarts={count}", 0.2, norm) for count in (1, 5)
    )
    assert (margins(toy, five) >= margins(toy, one) - 1e-5).all()
    assert not torch.equal(one, five)


@pytest.mark.parametrize(
    ("spec", "forward"),
    [("noise", 0), ("noise:restarts=3", 3), ("noise:criterion=top1", 2), ("noise:distribution=gaussian", 0)],
)
def test_only_a_choice_or_a_verdict_costs_a_pass(toy: Toy, spec: str, forward: int) -> None:
    """With stop on success: one pass for the clean logits, one for the verdict."""
    with AttackedModel(toy.model) as attacked:
        perturb_images(parse_attack(spec), attacked, toy.images[:1], toy.labels[:1], [1e-6])
    assert (attacked.forward_passes, attacked.backward_passes) == (forward, 0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_keeps_the_accuracy_that_foolbox_keeps(toy: Toy, norm: str) -> None:
    foolbox = pytest.importorskip("foolbox")
    attack, spec, eps = {
        "linf": (foolbox.attacks.LinfAdditiveUniformNoiseAttack(), "noise", 0.5),
        "l2": (foolbox.attacks.L2AdditiveGaussianNoiseAttack(), "noise:distribution=gaussian", 12.0),
    }[norm]
    model = foolbox.PyTorchModel(toy.model, bounds=(0, 1), device="cpu")
    ours = np.mean(
        [_kept(toy, perturb(toy.model, toy.images, toy.labels, spec, eps, norm, seed=s)) for s in range(4)]
    )
    theirs = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(4):
            _, moved, _ = attack(model, toy.images, toy.labels, epsilons=eps)
            theirs.append(_kept(toy, moved))
    assert 0.1 < ours < 0.95
    assert abs(ours - np.mean(theirs)) <= 0.1


def _kept(toy: Toy, images: torch.Tensor) -> float:
    return float((margins(toy, images) < 0).float().mean())


def test_settings_out_of_range_are_refused_by_name() -> None:
    with pytest.raises(
        InvalidSettingError, match=r"attack 'noise' got distribution=salt; expected uniform or gaussian"
    ):
        parse_attack("noise:distribution=salt")
    with pytest.raises(InvalidSettingError, match=r"attack 'noise' got restarts=0; expected 1 or more"):
        parse_attack("noise:restarts=0")
