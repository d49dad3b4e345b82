"""The attacked model: gradients by finite differences, counts of passes, and the state that it restores."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from toys import Toy

from robustbench_tin.attacks import AttackedModel


def test_gradients_are_each_images_own(toy: Toy) -> None:
    with AttackedModel(toy.model) as attacked:
        together = attacked.gradient(toy.images[:4], toy.labels[:4])
        alone = torch.cat([attacked.gradient(toy.images[i : i + 1], toy.labels[i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_gradients_match_finite_differences(toy: Toy) -> None:
    image, label, step = toy.images[:1], toy.labels[:1], 1e-3
    with AttackedModel(toy.model) as attacked:
        gradient = attacked.gradient(image, label)
    index = gradient.flatten().abs().argmax()
    nudge = torch.zeros_like(image)
    nudge.view(-1)[index] = step
    model = toy.model
    with torch.no_grad():
        rise = functional.cross_entropy(model(image + nudge), label) - functional.cross_entropy(
            model(image - nudge), label
        )
    assert float(rise / (2 * step)) == pytest.approx(float(gradient.flatten()[index]), rel=0.02)


def test_another_loss_may_be_climbed(toy: Toy) -> None:
    def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return -logits.gather(1, labels.view(-1, 1)).flatten()

    images = toy.images[:3].clone().requires_grad_()
    (expected,) = torch.autograd.grad(margin(toy.model(images), toy.labels[:3]).sum(), images)
    with AttackedModel(toy.model) as attacked:
        assert torch.equal(attacked.gradient(toy.images[:3], toy.labels[:3], margin), expected)


def test_logits_are_float32_and_usable_outside(toy: Toy) -> None:
    with AttackedModel(toy.model) as attacked:
        logits = attacked.logits(toy.images)
    assert logits.dtype == torch.float32
    assert not logits.is_inference()
    assert (attacked.forward_passes, attacked.backward_passes) == (64, 0)


def test_inside_nothing_trains_and_afterwards_all_is_back(mixed_model: nn.Module) -> None:
    modes = [module.training for module in mixed_model.modules()]
    flags = [parameter.requires_grad for parameter in mixed_model.parameters()]
    assert len(set(modes)) == len(set(flags)) == 2
    with AttackedModel(mixed_model):
        assert not any(module.training for module in mixed_model.modules())
        assert not any(parameter.requires_grad for parameter in mixed_model.parameters())
    assert [module.training for module in mixed_model.modules()] == modes
    assert [parameter.requires_grad for parameter in mixed_model.parameters()] == flags


def test_a_callers_autocast_lowers_nothing(toy: Toy) -> None:
    with AttackedModel(toy.model) as attacked:
        plain = attacked.logits(toy.images[:4])
    with torch.autocast("cpu", torch.bfloat16), AttackedModel(toy.model) as attacked:
        inside = attacked.logits(toy.images[:4])
    assert torch.equal(plain, inside)
