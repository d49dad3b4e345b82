"""What every registered attack owes to every model, built in or plugged in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from light_attacks import EVERY_ATTACK, LIGHT
from torch import Tensor, nn
from toys import Toy

from robustbench_tin import attacks
from robustbench_tin.attacks import Oracle, parse_attack, registry
from robustbench_tin.attacks.base import AttackFailure
from robustbench_tin.attacks.pool import Pool
from robustbench_tin.benchmarks.measure import Conditions, measure_attack, measure_clean
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import L2_TOLERANCE, NORMS

EPS = {"linf": (0.0, 1e-8, 8 / 255, 1.0), "l2": (0.0, 1e-8, 0.5, 100.0)}
EVERY_NORM = pytest.mark.parametrize("norm", NORMS)


@pytest.fixture
def toy(toy: Toy) -> Toy:
    """Fewer of its images: every attack meets every test."""
    return Toy(toy.model, toy.images[:20], toy.labels[:20])


def perturbed(model: nn.Module, name: str, images: Tensor, labels: Tensor, eps, norm, seed=0) -> Tensor:
    with Oracle(model) as oracle:
        return parse_attack(name).perturb(oracle, images, labels, eps, norm=norm, seed=seed)


def state_of(model: nn.Module) -> dict[str, object]:
    """All that an attack might disturb, comparable with ``==``."""
    return {
        "weights": {key: value.numpy().tobytes() for key, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [
            None if parameter.grad is None else parameter.grad.tolist() for parameter in model.parameters()
        ],
        "random": torch.random.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "precision": (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32),
    }


class Broken(nn.Module):
    """A model that goes wrong in a way of the test's choice, with one layer in train mode."""

    def __init__(self, toy: Toy, spoil: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner = copy.deepcopy(toy.model)
        self.dropout = nn.Dropout()
        self.spoil = spoil

    def forward(self, images: Tensor) -> object:
        return self.spoil(self.inner(images))


def crash(logits: Tensor) -> Tensor:
    raise ValueError("two lines\nof trouble")


def detach(logits: Tensor) -> Tensor:
    return logits.detach()


def skip_what_it_never_sees(toy: Toy, name: str, spoil: Callable, *, judged: bool) -> None:
    """An attack that asks the model nothing, or for no gradient, cannot be failed by it."""
    with Oracle(toy.model) as oracle:
        parse_attack(name).perturb(oracle, toy.images[:1], toy.labels[:1], [0.01])
    if spoil is detach and oracle.backward_passes == 0:
        pytest.skip("takes no gradients")
    if oracle.forward_passes == 0 and not judged:
        pytest.skip("asks the model nothing")


FAILURES = pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(crash, "ValueError: two lines of trouble", id="crash"),
        pytest.param(lambda logits: logits * float("nan"), "not finite", id="nan"),
        pytest.param(lambda logits: logits + float("inf"), "not finite", id="inf"),
        pytest.param(detach, "no gradient", id="detached"),
        pytest.param(lambda logits: logits.mean(), r"returned \(\)", id="scalar"),
        pytest.param(lambda logits: logits[:-1], "returned", id="a row short"),
        pytest.param(lambda logits: logits[..., None], "returned", id="three dimensions"),
        pytest.param(lambda logits: (logits,), "returned tuple", id="tuple"),
    ],
)


@EVERY_ATTACK
@EVERY_NORM
def test_results_are_images_inside_their_ball(toy: Toy, name: str, norm: str) -> None:
    moved = perturbed(toy.model, name, toy.images, toy.labels, EPS[norm], norm)
    assert moved.shape == (4, *toy.images.shape)
    assert moved.dtype == torch.float32
    assert not moved.requires_grad
    assert torch.isfinite(moved).all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(moved[0], toy.images)
    change = (moved.double() - toy.images.double()).flatten(2)
    for eps, of_images in zip(EPS[norm], change, strict=True):
        if norm == "linf":
            assert of_images.abs().max() <= eps
        else:
            assert of_images.norm(dim=1).max() <= eps * (1 + L2_TOLERANCE)
    # Until broken, a short search may find nothing in a small ball; where the ball is the whole box, it must.
    must_move = 2 if parse_attack(name).criterion is None else 3
    assert not torch.equal(moved[must_move], toy.images)


def test_an_attack_too_slow_for_these_tests_has_a_lighter_spec() -> None:
    budgets = {name: parse_attack(LIGHT.get(name, name)).gradients(1) for name in registry.names()}
    assert not {name: gradients for name, gradients in budgets.items() if gradients > 100}
    assert set(LIGHT) <= set(budgets)


@EVERY_ATTACK
@EVERY_NORM
def test_the_model_and_all_random_states_are_left_as_they_were(
    toy: Toy, mixed_model: nn.Module, name: str, norm: str
) -> None:
    before = state_of(mixed_model)
    perturbed(mixed_model, name, toy.images[:6], toy.labels[:6], EPS[norm], norm)
    assert state_of(mixed_model) == before


@EVERY_ATTACK
@FAILURES
def test_a_failing_model_is_a_failure_and_left_as_it_was(
    toy: Toy, name: str, spoil: Callable, reason: str
) -> None:
    skip_what_it_never_sees(toy, name, spoil, judged=False)
    model = Broken(toy, spoil)
    before = state_of(model)
    with pytest.raises(AttackFailure, match=reason):
        perturbed(model, name, toy.images[:4], toy.labels[:4], [8 / 255], "linf")
    assert state_of(model) == before


@EVERY_ATTACK
@FAILURES
def test_a_failed_measure_is_neither_robust_nor_zero(
    toy: Toy, name: str, spoil: Callable, reason: str
) -> None:
    skip_what_it_never_sees(toy, name, spoil, judged=True)
    model = Broken(toy, spoil)
    before = state_of(model)
    pool = Pool(toy.images[:4], toy.labels[:4], 4, torch.device("cpu"))
    for outcomes in measure_attack(model, pool, parse_attack(name), (0.01, 0.03)):
        assert str(outcomes.status).startswith("failed: ")
        assert "\n" not in str(outcomes.status)
        assert outcomes.top1 is None
        assert outcomes.top5 is None
    assert state_of(model) == before


@EVERY_ATTACK
def test_a_failure_in_a_later_batch_fails_the_whole_measure(toy: Toy, name: str) -> None:
    class FailsAtLast(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = toy.model(images)
            return logits if len(images) == 4 else logits * float("nan")

    pool = Pool(toy.images[:10], toy.labels[:10], 4, torch.device("cpu"))
    (outcomes,) = measure_attack(FailsAtLast(), pool, parse_attack(name), [0.01])
    assert str(outcomes.status) == "failed: the model's logits are not finite"
    assert outcomes.top1 is None


@EVERY_ATTACK
@EVERY_NORM
def test_a_budget_does_not_depend_on_the_others(toy: Toy, name: str, norm: str) -> None:
    together = perturbed(toy.model, name, toy.images, toy.labels, EPS[norm][::-1], norm)
    for eps, moved in zip(EPS[norm][::-1], together, strict=True):
        assert torch.equal(perturbed(toy.model, name, toy.images, toy.labels, [eps], norm)[0], moved)
    twice = perturbed(toy.model, name, toy.images, toy.labels, [EPS[norm][2]] * 2, norm)
    assert torch.equal(twice[0], twice[1])
    assert torch.equal(twice[0], together[1])


@EVERY_ATTACK
@EVERY_NORM
def test_it_works_within_any_gradient_mode(toy: Toy, name: str, norm: str) -> None:
    with torch.enable_grad():
        expected = perturbed(toy.model, name, toy.images, toy.labels, EPS[norm], norm)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            images, labels = toy.images.clone(), toy.labels.clone()
            moved = perturbed(toy.model, name, images, labels, EPS[norm], norm)
        assert torch.equal(moved, expected)


@EVERY_ATTACK
def test_images_that_want_a_gradient_get_none(toy: Toy, name: str) -> None:
    images = toy.images[:4].clone().requires_grad_()
    moved = perturbed(toy.model, name, images, toy.labels[:4], (0.0, 0.03), "linf")
    assert not moved.requires_grad
    assert images.grad is None


@EVERY_ATTACK
@EVERY_NORM
def test_the_seed_alone_decides(toy: Toy, name: str, norm: str) -> None:
    torch.manual_seed(1)
    one = perturbed(toy.model, name, toy.images, toy.labels, EPS[norm], norm, seed=5)
    torch.manual_seed(2)
    assert torch.equal(perturbed(toy.model, name, toy.images, toy.labels, EPS[norm], norm, seed=5), one)


def test_another_seed_starts_pgd_elsewhere(toy: Toy) -> None:
    one, other = (
        perturbed(toy.model, "pgd", toy.images, toy.labels, [0.03], "linf", seed=seed) for seed in (0, 1)
    )
    assert not torch.equal(one, other)


@EVERY_ATTACK
def test_the_classifier_is_attacked_in_eval_mode(toy: Toy, mixed_model: nn.Module, name: str) -> None:
    """A dropout left on would blind the gradients; in eval mode the same images come out each time."""
    expected = perturbed(copy.deepcopy(mixed_model).eval(), name, toy.images, toy.labels, [0.03], "linf")
    assert torch.equal(perturbed(mixed_model, name, toy.images, toy.labels, [0.03], "linf"), expected)


class Normalising(nn.Module):
    """A network behind a normalisation, which is made in place or not."""

    def __init__(self, network: nn.Module, *, in_place: bool) -> None:
        super().__init__()
        self.network, self.in_place = network, in_place

    def forward(self, images: Tensor) -> Tensor:
        if self.in_place:
            images[:, 0].mul_(2)
            images.sub_(0.5).div_(0.25).clamp_(-4, 4)
        else:
            first, others = images.split([1, 2], dim=1)
            images = ((torch.cat([2 * first, others], dim=1) - 0.5) / 0.25).clamp(-4, 4)
        logits: Tensor = self.network(images)
        return logits


@EVERY_ATTACK
@EVERY_NORM
def test_a_model_may_write_into_its_images(toy: Toy, name: str, norm: str) -> None:
    eps = [EPS[norm][2]]
    apart, in_place = (Normalising(toy.model, in_place=each) for each in (False, True))
    expected = perturbed(apart, name, toy.images, toy.labels, eps, norm)
    given = toy.images.clone()
    assert torch.equal(perturbed(in_place, name, given, toy.labels, eps, norm), expected)
    assert torch.equal(given, toy.images)
    pools = [Pool(images, toy.labels, 8, torch.device("cpu")) for images in (toy.images, given)]
    attack, under = parse_attack(name), Conditions(norm, search="fixed")
    (one,), (other,) = (
        measure_attack(model, pool, attack, eps, under)
        for model, pool in zip((apart, in_place), pools, strict=True)
    )
    assert str(one.status) == str(other.status) == "ok"
    for mine, theirs in ((one.top1, other.top1), (one.top5, other.top5)):
        assert (mine is None) == (theirs is None)
        assert mine is None or np.array_equal(mine, theirs)
    assert torch.equal(given, toy.images)


@EVERY_ATTACK
def test_threads_that_share_a_model_get_what_each_gets_alone(
    toy: Toy, mixed_model: nn.Module, name: str
) -> None:
    """The model is random if its dropout is on; random states, modes and buffers are everybody's."""
    before = state_of(mixed_model)
    images, labels = toy.images[:8], toy.labels[:8]

    def moved(seed: int) -> Tensor:
        return perturbed(mixed_model, name, images, labels, [0.03], "linf", seed=seed)

    alone = [moved(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(moved, range(4)))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert state_of(mixed_model) == before


class Adapting(nn.Module):
    """Batch norm that stays in train mode, and a buffer that follows the images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.norm.train()
        return self

    def forward(self, images: Tensor) -> Tensor:
        seen = images.detach().mean(dim=(0, 2, 3), keepdim=True)
        self.mean = 0.9 * self.mean + 0.1 * seen
        logits: Tensor = self.network(self.norm(images - self.mean))
        return logits


@EVERY_ATTACK
def test_what_a_model_changes_as_it_answers_is_put_back(toy: Toy, name: str) -> None:
    model = Adapting(copy.deepcopy(toy.model)).eval()
    before = state_of(model)
    first = perturbed(model, name, toy.images, toy.labels, [0.03], "linf")
    assert state_of(model) == before
    assert torch.equal(perturbed(model, name, toy.images, toy.labels, [0.03], "linf"), first)


@EVERY_ATTACK
def test_images_of_another_kind_are_refused(toy: Toy, name: str) -> None:
    for images in (toy.images.double(), (toy.images * 255).byte(), toy.images[0]):
        with pytest.raises(InvalidSettingError, match="expected float32"):
            perturbed(toy.model, name, images, toy.labels, [0.03], "linf")


@EVERY_ATTACK
@pytest.mark.parametrize(("eps", "norm"), [(-0.1, "linf"), (float("nan"), "linf"), (0.1, "l1")])
def test_an_impossible_threat_model_is_the_users_mistake(toy: Toy, name: str, eps: float, norm: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"^(eps|norm) got"):
        perturbed(toy.model, name, toy.images, toy.labels, [eps], norm)


@EVERY_ATTACK
def test_the_spec_builds_the_same_attack_again(name: str) -> None:
    assert parse_attack(parse_attack(name).spec) == parse_attack(name)


class TestPluggedIn:
    """The base class keeps an attack honest whose author was not."""

    @pytest.mark.parametrize("eps", [1e-8, 8 / 255])
    @EVERY_NORM
    def test_what_leaves_the_ball_is_brought_back(self, toy: Toy, norm: str, eps: float) -> None:
        @attacks.register("reckless")
        @dataclass(frozen=True)
        class Reckless(attacks.Attack):
            def run(self, oracle, labels, ball, generator):
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
            def run(self, oracle, labels, ball, generator):
                return result(ball.images)

        for norm in NORMS:
            with pytest.raises(AttackFailure, match=reason):
                perturbed(toy.model, "useless", toy.images, toy.labels, [0.1], norm)
        pool = Pool(toy.images, toy.labels, 64, torch.device("cpu"))
        (outcomes,) = measure_attack(toy.model, pool, parse_attack("useless"), [0.1])
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
            def run(self, oracle, labels, ball, generator):
                return ball.images.add_(0.3).clamp_(0, 1)

        before = toy.images.clone()
        pool = Pool(toy.images, toy.labels, 24, torch.device("cpu"))
        attack = parse_attack(f"scribbler:criterion={criterion}")
        (outcomes,) = measure_attack(toy.model, pool, attack, [0.1], Conditions(norm))
        assert (
            str(outcomes.status)
            == "failed: scribbler wrote into the clean images; expected it to return new ones"
        )
        assert torch.equal(toy.images, before)


def test_a_model_without_gradients_still_has_a_clean_measure(toy: Toy) -> None:
    pool = Pool(toy.images, toy.labels, 24, torch.device("cpu"))
    outcomes, _ = measure_clean(Broken(toy, detach), pool)
    assert str(outcomes.status) == "ok"
    assert outcomes.top1 is not None
    assert outcomes.top1.mean() > 0.9
    assert (outcomes.forward_passes, outcomes.backward_passes) == (20, 0)


@EVERY_ATTACK
def test_one_that_needs_no_gradients_takes_none(toy: Toy, name: str) -> None:
    attack = parse_attack(name)
    with Oracle(toy.model) as oracle:
        attack.perturb(oracle, toy.images, toy.labels, [8 / 255], norm=attack.norms[0])
    assert attack.needs_gradients or oracle.backward_passes == 0
