"""Models that are random at test time: the seed decides their draws, and torch's state is left alone."""

# ruff: noqa: NPY002 - models of other people draw from NumPy's global state

from __future__ import annotations

import copy
import random

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import Toy

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.attacks.acceleration.variant_cache import VariantCache
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.attacks.engine.rng import own_randomness, random_state, seed_of, seed_randomness
from robustbench_tin.defenses import parse_defense

CPU = torch.device("cpu")
ATTACKS = "fgsm,pgd:steps=2,pgd:criterion=top1,steps=3"


@pytest.fixture
def noisy(toy: Toy) -> nn.Module:
    return parse_defense("random-resize:least=0.6").wrap(toy.model)


def table(model: nn.Module, toy: Toy, **settings: object) -> pd.DataFrame:
    frame = evaluate(model, toy.images, toy.labels, ATTACKS, [0.02, 0.04], batch_size=24, **settings).records
    assert set(frame.status) == {"ok"}
    return frame.drop(columns="seconds")


@pytest.mark.parametrize("search", ["fixed", "exact"])
def test_the_same_call_gives_the_same_table(noisy: nn.Module, toy: Toy, search: str) -> None:
    torch.manual_seed(1)
    first = table(noisy, toy, search=search)
    torch.manual_seed(2)
    torch.rand(3)
    assert table(noisy, toy, search=search).equals(first)
    assert not table(noisy, toy, search=search, seed=1).top1.equals(first.top1)


def test_the_random_state_is_left_as_it_was(noisy: nn.Module, toy: Toy) -> None:
    before = torch.random.get_rng_state()
    table(noisy, toy, search="auto", eot=2)
    perturb(noisy, toy.images, toy.labels, "pgd:criterion=top1", 0.03)
    with AttackedModel(noisy) as attacked:
        attacked.logits(toy.images)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_budget_does_not_depend_on_the_others(noisy: nn.Module, toy: Toy) -> None:
    together = table(noisy, toy).set_index(["attack", "eps"]).top1
    alone = evaluate(noisy, toy.images, toy.labels, ATTACKS, 0.04, batch_size=24).records
    for row in alone.itertuples():
        assert together[row.attack, row.eps] == row.top1


def test_the_images_returned_give_the_accuracy_reported(noisy: nn.Module, toy: Toy) -> None:
    """The verdict on a batch draws the same, clean or attacked: measured again, images score as before."""
    settings = {"seed": 3, "batch_size": 24}
    frame = evaluate(noisy, toy.images, toy.labels, "pgd", 0.03, **settings).records
    moved = perturb(noisy, toy.images, toy.labels, "pgd", 0.03, **settings)
    again = evaluate(noisy, moved, toy.labels, "fgsm", 0.0, **settings).records
    assert again.top1[0] == frame.top1[1] < frame.top1[0]
    tiny = evaluate(noisy, toy.images, toy.labels, "fgsm", 1e-9, **settings).records
    assert tiny.top1[0] == tiny.top1[1]


def test_neither_search_nor_attack_sees_the_draws_of_the_verdict(toy: Toy) -> None:
    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.draws: list[tuple[bool, Tensor]] = []

        def forward(self, images: Tensor) -> Tensor:
            draw = torch.rand(len(images))
            self.draws.append((torch.is_grad_enabled(), draw))
            logits: Tensor = toy.model(images)
            return logits

    model = Recorder()
    evaluate(model, toy.images, toy.labels, "pgd:steps=3", [0.02, 0.04], batch_size=32, search="exact")
    searched = {tuple(draw.tolist()) for climbing, draw in model.draws if climbing}
    judged = {tuple(draw.tolist()) for climbing, draw in model.draws if not climbing and len(draw) == 32}
    # Two batches, each judged alike three times; three steps each, alike for both budgets.
    assert (len(searched), len(judged)) == (6, 2)
    assert not searched & judged
    start = torch.rand(32, generator=torch.Generator().manual_seed(0))
    assert tuple(start.tolist()) not in searched | judged


def test_expectation_averages_over_draws(toy: Toy) -> None:
    model = parse_defense("random-resize:least=0.5").wrap(toy.model)
    images, labels = toy.images[:8], toy.labels[:8]
    with AttackedModel(model, eot=300) as attacked:
        one = attacked.gradient(images, labels)
        other = attacked.gradient(images, labels)
    assert (attacked.forward_passes, attacked.backward_passes) == (4800, 4800)
    with AttackedModel(model) as attacked:
        single = [attacked.gradient(images, labels) for _ in range(2)]

    def alike(a: Tensor, b: Tensor) -> float:
        return float(torch.cosine_similarity(a.flatten(1), b.flatten(1)).mean())

    assert alike(one, other) > 0.9 > alike(*single)


class TestForms:
    """A form of a random model is compared with it under the same draws."""

    def test_one_that_draws_alike_is_taken(self, noisy: nn.Module, toy: Toy) -> None:
        variant = VariantCache().choose("fixed", noisy, toy.images).variant()
        assert str(variant.label) == "float32, channels-last, folded"

    def test_one_that_draws_otherwise_is_not(self, toy: Toy) -> None:
        class DrawsMoreAsCopy(nn.Module):
            """Its copies are one draw ahead of it."""

            def __init__(self, ahead: int) -> None:
                super().__init__()
                self.inner, self.ahead = copy.deepcopy(toy.model), ahead

            def __deepcopy__(self, memo: object) -> nn.Module:
                return DrawsMoreAsCopy(self.ahead + 1)

            def forward(self, images: Tensor) -> Tensor:
                torch.rand(self.ahead)
                logits: Tensor = self.inner(images * torch.rand_like(images).gt(0.5))
                return logits

        model = DrawsMoreAsCopy(0)
        variant = VariantCache().choose("fixed", model, toy.images).variant()
        assert variant.module is model

    def test_the_choice_leaves_the_random_state(self, noisy: nn.Module, toy: Toy) -> None:
        before = torch.random.get_rng_state()
        for search in ("auto", "fixed", "exact"):
            VariantCache().choose(search, noisy, toy.images)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_another_model_gets_its_own(self, noisy: nn.Module, toy: Toy) -> None:
        variants = VariantCache()
        variants.choose("exact", noisy, toy.images)
        assert variants.choose("exact", toy.model, toy.images).variant().module is toy.model


def test_a_dropout_left_on_is_measured_as_the_random_model_it_is(toy: Toy) -> None:
    class Dropping(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = toy.model(functional.dropout(images, 0.1, training=True))
            return logits

    frames = [table(Dropping(), toy, search="auto") for _ in range(2)]
    full = [frame[frame["mode"] != "stop on success (top-1)"] for frame in frames]
    assert full[0].equals(full[1])


def test_a_budgets_randomness_is_the_attacks_and_the_models(noisy: nn.Module, toy: Toy) -> None:
    """Also if the attack is called directly."""
    for name in ("pgd:steps=2", "pgd:criterion=top1,steps=2"):
        attack = parse_attack(name)
        with AttackedModel(noisy) as attacked:
            both = perturb_images(attack, attacked, toy.images, toy.labels, [0.02, 0.04], seed=5)
        with AttackedModel(noisy, seed=9) as attacked:
            attacked.logits(toy.images)
            alone = perturb_images(attack, attacked, toy.images, toy.labels, [0.04], seed=5)
        assert torch.equal(both[1], alone[0])


def test_the_draws_of_other_libraries_follow_from_the_seed_too(toy: Toy) -> None:
    class Drawing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            noise = random.gauss(0, 0.05) + np.random.normal(0, 0.05, images.shape)
            logits: Tensor = toy.model(images + torch.from_numpy(noise).float())
            return logits

    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = table(Drawing(), toy)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.seed(2)
    np.random.seed(2)
    assert table(Drawing(), toy).equals(first)
    assert not table(Drawing(), toy, seed=1).top1.equals(first.top1)


def test_a_random_state_tells_whether_anything_was_drawn() -> None:
    for draw in (lambda: torch.rand(1), lambda: np.random.rand(), random.random):
        before = random_state(CPU)
        assert random_state(CPU) == before
        draw()
        assert random_state(CPU) != before


def test_seeds_follow_from_their_key_alone() -> None:
    assert seed_of("verdict", 1) == seed_of("verdict", 1)
    assert len({seed_of(*key) for key in [("a", 1), ("a", 2), ("b", 1), (1,), ("1",), (1, 1), (11,)]}) == 7
    with own_randomness(CPU):
        seed_randomness(CPU, 0)
        ours = torch.rand(4)
        seed_randomness(CPU, 0)
        assert torch.equal(torch.rand(4), ours)
    assert not torch.equal(torch.rand(4, generator=torch.Generator().manual_seed(0)), ours)
