"""N-FGSM and free adversarial training against their published steps, written down a second time."""

from __future__ import annotations

import pytest
import torch
from defense_toys import Fed, context_of
from torch.nn import functional
from toys import Toy, build_toy_model

from robustbench_tin.defenses import parse_defense
from robustbench_tin.defenses.free_at import CHANGE


@pytest.mark.parametrize(
    ("spec", "eps", "noise"), [("n-fgsm", 8 / 255, 2), ("n-fgsm:eps=0.1,noise=1", 0.1, 1)]
)
def test_n_fgsm_is_noise_and_a_step_that_is_not_clipped(
    toy: Toy, spec: str, eps: float, noise: float
) -> None:
    model = Fed(build_toy_model())
    loss = parse_defense(spec).loss(model, toy.images, toy.labels, context_of(7))
    by_hand = build_toy_model()
    uniform = torch.rand(toy.images.shape, generator=torch.Generator().manual_seed(7))
    eta = (toy.images + noise * eps * (2 * uniform - 1)).clamp(0, 1) - toy.images
    eta.requires_grad_()
    (slope,) = torch.autograd.grad(functional.cross_entropy(by_hand(toy.images + eta), toy.labels), eta)
    moved = (toy.images + eta.detach() + eps * torch.sign(slope)).clamp(0, 1)
    assert torch.allclose(model.shown[-1], moved, atol=1e-6)
    assert loss.item() == pytest.approx(functional.cross_entropy(by_hand(moved), toy.labels).item(), rel=1e-5)
    furthest = (model.shown[-1] - toy.images).abs().max().item()
    assert eps * noise < furthest <= eps * (noise + 1) + 1e-6


def test_the_free_change_is_carried_over_replays_and_batches(toy: Toy) -> None:
    """Their algorithm 1, on two batches replayed three times, with a plain SGD step each time."""
    eps, rate = 0.05, 0.1
    defense = parse_defense(f"free-at:eps={eps},replays=3")
    assert defense.replays == 3
    model, by_hand = Fed(build_toy_model()), build_toy_model()
    context = context_of(0)
    change = torch.zeros(32, 3, 16, 16)
    for first in (0, 32):
        images, labels = toy.images[first : first + 32], toy.labels[first : first + 32]
        for _ in range(3):
            loss = defense.objective(model, images, labels, context)()
            model.zero_grad()
            loss.backward()

            carried = change.clone().requires_grad_()
            expected = functional.cross_entropy(by_hand((images + carried).clamp(0, 1)), labels)
            by_hand.zero_grad()
            expected.backward()
            change = (change + eps * carried.grad.sign()).clamp(-eps, eps)

            assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
            assert torch.allclose(context.memory[CHANGE], change)
            with torch.no_grad():
                for network in (model, by_hand):
                    for weight in network.parameters():
                        weight -= rate * weight.grad
    assert len(model.shown) == 6
    assert float(change.abs().max()) == pytest.approx(eps)


def test_the_free_change_fits_batches_of_other_sizes_and_parts_of_them(toy: Toy) -> None:
    whole, parts = context_of(0), context_of(0)
    defense = parse_defense("free-at")
    for count in (20, 24, 16):
        images, labels = toy.images[:count], toy.labels[:count]
        model, other = build_toy_model(), build_toy_model()
        defense.objective(model, images, labels, whole)().backward()
        for first in range(0, count, 5):
            parts.first_row = first
            rows = slice(first, first + 5)
            defense.objective(other, images[rows], labels[rows], parts)().backward()
    assert torch.equal(whole.memory[CHANGE], parts.memory[CHANGE])
    assert len(whole.memory[CHANGE]) == 24
    assert bool(whole.memory[CHANGE].any())
