"""The contract that every registered attack keeps with every model, built in or plugged in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from light_attacks import EVERY_ATTACK, LIGHT
from torch import Tensor, nn
from toys import Toy

from robustbench_tin import attacks
from robustbench_tin.attacks import NORMS, AttackedModel, AttackFailure, parse_attack, registry
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.benchmarks.measurement.attack import measure_attack
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.testing.attack_case import AttackCase
from robustbench_tin.testing.checks import hold_attack_rule
from robustbench_tin.testing.contracts import EVERY_ATTACK_RULE
from robustbench_tin.testing.models import Broken, detach
from robustbench_tin.testing.rules import Rule

EVERY_NORM = pytest.mark.parametrize("norm", NORMS)


@pytest.fixture
def toy(toy: Toy) -> Toy:
    """Fewer of its images: every attack meets every test."""
    return Toy(toy.model, toy.images[:20], toy.labels[:20])


def perturbed(model: nn.Module, name: str, images: Tensor, labels: Tensor, eps, norm, seed=0) -> Tensor:
    with AttackedModel(model) as attacked:
        return perturb_images(parse_attack(name), attacked, images, labels, eps, norm=norm, seed=seed)


@EVERY_ATTACK
@EVERY_ATTACK_RULE
def test_it_keeps_the_contract(name: str, rule: Rule[AttackCase], norm: str | None) -> None:
    attack = parse_attack(name)
    assert attack.norms == NORMS
    hold_attack_rule(rule, attack, norm)


def test_an_attack_too_slow_for_these_tests_has_a_lighter_spec() -> None:
    budgets = {name: parse_attack(LIGHT.get(name, name)).gradients(1) for name in registry.names()}
    assert not {name: gradients for name, gradients in budgets.items() if gradients > 100}
    assert set(LIGHT) <= set(budgets)


def test_another_seed_starts_pgd_elsewhere(toy: Toy) -> None:
    one, other = (
        perturbed(toy.model, "pgd", toy.images, toy.labels, [0.03], "linf", seed=seed) for seed in (0, 1)
    )
    assert not torch.equal(one, other)


class TestPluggedIn:
    """The base class keeps an attack honest whose author was not."""

    @pytest.mark.parametrize("eps", [1e-8, 8 / 255])
    @EVERY_NORM
    def test_what_leaves_the_ball_is_brought_back(self, toy: Toy, norm: str, eps: float) -> None:
        @attacks.register("reckless")
        @dataclass(frozen=True)
        class Reckless(attacks.Attack):
            def run(self, attacked, labels, ball, generator):
                return (1e9 * torch.randn(ball.images.shape, generator=generator)).double()

        moved = perturbed(toy.model, "reckless", toy.images, toy.labels, [eps], norm)[0]
        change = (moved.double() - toy.images.double()).flatten(1)
        assert change.norm(dim=1, p=float("inf") if norm == "linf" else 2).max() <= eps * (1 + 1e-6)

    @pytest.mark.parametrize(
        ("result", "reason"),
        [
            (lambda images: images * float("nan"), "not finite"),
            (lambda images: images[:2], "returned"),
            (lambda images: 1 // 0, "ZeroDivisionError"),
        ],
    )
    def test_what_is_no_image_is_a_failure(self, toy: Toy, result: Callable, reason: str) -> None:
        @attacks.register("useless")
        @dataclass(frozen=True)
        class Useless(attacks.Attack):
            def run(self, attacked, labels, ball, generator):
                return result(ball.images)

        for norm in NORMS:
            with pytest.raises(AttackFailure, match=reason):
                perturbed(toy.model, "useless", toy.images, toy.labels, [0.1], norm)
        batches = ImageBatches(toy.images, toy.labels, 64, torch.device("cpu"))
        (outcomes,) = measure_attack(toy.model, batches, parse_attack("useless"), [0.1])
        assert str(outcomes.status).startswith("failed: ")
        assert outcomes.top1 is None

    @pytest.mark.parametrize("criterion", ["none", "top1"])
    @EVERY_NORM
    def test_one_that_writes_into_the_clean_images_fails_and_harms_no_one(
        self, toy: Toy, norm: str, criterion: str
    ) -> None:
        @attacks.register("scribbler")
        @dataclass(frozen=True)
        class Scribbler(attacks.Attack):
            def run(self, attacked, labels, ball, generator):
                return ball.images.add_(0.3).clamp_(0, 1)

        before = toy.images.clone()
        batches = ImageBatches(toy.images, toy.labels, 24, torch.device("cpu"))
        attack = parse_attack(f"scribbler:criterion={criterion}")
        (outcomes,) = measure_attack(toy.model, batches, attack, [0.1], AttackProtocol(norm))
        assert (
            str(outcomes.status)
            == "failed: scribbler wrote into the clean images; expected it to return new ones"
        )
        assert torch.equal(toy.images, before)


def test_a_model_without_gradients_still_has_a_clean_measure(toy: Toy) -> None:
    batches = ImageBatches(toy.images, toy.labels, 24, torch.device("cpu"))
    outcomes, _ = measure_clean(Broken(toy.model, detach), batches)
    assert str(outcomes.status) == "ok"
    assert outcomes.top1 is not None
    assert outcomes.top1.mean() > 0.9
    assert (outcomes.forward_passes, outcomes.backward_passes) == (20, 0)
