"""The attacked model's gradients of several losses a row, of which one is chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import TOY_CLASSES, Toy

from robustbench_tin.attacks import AttackedModel
from robustbench_tin.attacks.engine.attacked_model import AttackFailure


def lengths_of(gradients: Tensor) -> Tensor:
    return gradients.flatten(1).norm(dim=1)


def steepest(losses: Tensor, lengths: Tensor) -> Tensor:
    return lengths.argmax(dim=1)


def expected(toy: Toy, rows: int) -> tuple[Tensor, Tensor]:
    """The steepest logit's value and gradient, from a Jacobian."""
    jacobian = torch.stack(
        [torch.func.jacrev(lambda image: toy.model(image[None])[0])(image) for image in toy.images[:rows]]
    )
    chosen = jacobian.flatten(2).norm(dim=2).argmax(dim=1)
    each = torch.arange(rows)
    return toy.model(toy.images[:rows])[each, chosen].detach(), jacobian[each, chosen].detach()


@pytest.mark.parametrize("eot", [1, 3])
def test_each_row_gets_the_gradient_it_chose(toy: Toy, eot: int) -> None:
    values, gradient = expected(toy, 6)
    with AttackedModel(toy.model, eot=eot) as attacked:
        answer = attacked.ask_chosen(toy.images[:6], lambda logits, rows: logits, lengths_of, steepest)
    assert answer.losses is not None
    assert answer.gradient is not None
    assert torch.allclose(answer.losses, values, atol=1e-5)
    assert torch.allclose(answer.gradient, gradient, atol=1e-5)
    assert attacked.forward_passes == 6 * eot
    assert attacked.backward_passes == 6 * (TOY_CLASSES + 1) * eot


def test_memory_that_runs_out_halves_the_batch(toy: Toy) -> None:
    class Small(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 3:
                raise torch.OutOfMemoryError
            return toy.model(images)

    with AttackedModel(Small()) as attacked:
        answer = attacked.ask_chosen(
            toy.images[:8], lambda logits, rows: logits * (1 + rows.start), lengths_of, steepest
        )
    assert answer.losses is not None
    scale = torch.tensor([1.0, 1, 3, 3, 5, 5, 7, 7])
    assert torch.allclose(answer.losses, expected(toy, 8)[0] * scale, atol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda logits: logits.detach(), "no gradient"),
        (lambda logits: logits * float("nan"), "logits are not finite"),
        # The square root's slope at 0 is infinite, and 0 times that is no number.
        (lambda logits: (logits * 0).sqrt() + logits, "gradient is not finite"),
    ],
)
def test_what_is_no_gradient_is_a_failure(toy: Toy, spoil, reason: str) -> None:
    class Spoilt(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return spoil(toy.model(images))

    with AttackedModel(Spoilt()) as attacked, pytest.raises(AttackFailure, match=reason):
        attacked.ask_chosen(toy.images[:2], lambda logits, rows: logits, lengths_of, steepest)
