"""Adversarial weight perturbation: the point of the gradient, and that the weights come back."""

from __future__ import annotations

import copy

import pytest
import torch
from defense_toys import Fed, build_normalised_model, context_of
from torch import nn
from torch.nn import functional
from toys import Toy, build_toy_model

from robustbench_tin.defenses import parse_defense
from robustbench_tin.defenses.base import Defense


def step(defense: Defense, model: nn.Module, toy: Toy, seed: int = 3) -> float:
    """The gradients of one step, as the loop asks for them."""
    context = context_of(seed)
    objective = defense.objective(model, toy.images, toy.labels, context)

    def gradients():
        model.zero_grad()
        loss = objective()
        loss.backward()
        return loss.detach()

    return defense.around_step(model, gradients, context).item()


def by_hand(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, gamma: float) -> nn.Module:
    """A copy of the network whose kernels were moved, its gradients taken there."""
    moved = copy.deepcopy(model)
    functional.cross_entropy(moved(images), labels).backward()
    with torch.no_grad():
        for weight in moved.parameters():
            if weight.dim() > 1:
                weight += gamma * weight.norm() * weight.grad / weight.grad.norm()
    moved.zero_grad()
    functional.cross_entropy(moved(images), labels).backward()
    return moved


@pytest.mark.parametrize("spec", ["awp+pgd-at:steps=2", "pgd-at:steps=2+awp:gamma=0.02", "awp+n-fgsm", "awp"])
def test_the_gradient_is_that_of_the_moved_weights_on_the_same_images(toy: Toy, spec: str) -> None:
    defense = parse_defense(spec)
    model = build_toy_model()
    loss = step(defense, model, toy)
    images = toy.images
    if "+" in spec:
        fed = Fed(build_toy_model())
        plain = parse_defense(spec.replace("awp+", "").replace("+awp:gamma=0.02", ""))
        plain.loss(fed, toy.images, toy.labels, context_of(3))
        images = fed.shown[-1]
    expected = by_hand(build_toy_model(), images, toy.labels, 0.02 if "gamma" in spec else 0.005)
    for weight, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(weight.grad, other.grad, rtol=1e-3, atol=1e-5)
    assert loss > functional.cross_entropy(build_toy_model()(images), toy.labels).item()


@pytest.mark.parametrize("spec", ["awp+pgd-at:steps=1", "awp:gamma=0.5+trades:steps=1", "awp+mart:steps=1"])
def test_the_weights_come_back_bit_for_bit(toy: Toy, spec: str) -> None:
    model = build_normalised_model().train()
    before = copy.deepcopy(list(model.parameters()))
    step(parse_defense(spec), model, toy)
    for weight, other in zip(model.parameters(), before, strict=True):
        assert torch.equal(weight, other)


def test_the_weights_come_back_after_an_error_too(toy: Toy) -> None:
    model = build_toy_model()
    before = copy.deepcopy(list(model.parameters()))
    calls = 0

    def gradients() -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            assert not torch.equal(model[0].weight, before[0])
            raise torch.OutOfMemoryError
        loss = functional.cross_entropy(model(toy.images), toy.labels)
        loss.backward()
        return loss.detach()

    with pytest.raises(torch.OutOfMemoryError):
        parse_defense("awp").around_step(model, gradients, context_of(0))
    assert all(torch.equal(weight, other) for weight, other in zip(model.parameters(), before, strict=True))


def test_statistics_and_carried_changes_come_from_the_second_pass_only(toy: Toy) -> None:
    model = build_normalised_model().train()
    step(parse_defense("awp"), model, toy)
    assert int(model[1].num_batches_tracked) == 1
    fed = Fed(model)
    context = context_of(0)
    defense = parse_defense("awp+free-at:eps=0.01")
    objective = defense.objective(fed, toy.images, toy.labels, context)
    defense.around_step(fed, lambda: objective().backward(), context)
    assert len(fed.shown) == 2
    assert all(torch.equal(shown, toy.images) for shown in fed.shown)
    (change,) = context.memory.values()
    assert float(change.abs().max()) == pytest.approx(0.01)


def test_before_its_warmup_is_over_the_step_is_plain(toy: Toy) -> None:
    plain, waiting = build_toy_model(), build_toy_model()
    step(parse_defense("pgd-at:steps=1"), plain, toy)
    step(parse_defense("awp:warmup=1+pgd-at:steps=1"), waiting, toy)
    for weight, other in zip(plain.parameters(), waiting.parameters(), strict=True):
        assert torch.equal(weight.grad, other.grad)
