"""Catastrophic overfitting is judged by a defense's attributes, not by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import TOY_CLASSES, build_toy_model, draw_toy_images

from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.evaluate import measured
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.trust.judge import judge
from robustbench_tin.benchmarks.trust.measured import Measured
from robustbench_tin.defenses import parse_defense
from robustbench_tin.defenses.n_fgsm import NoiseFGSM
from robustbench_tin.training.context import Context

EPS = 0.15
STEPS, RAMP = 400, 60

Judge = Callable[[str], Sequence[Measured]]


def overfitted() -> nn.Module:
    """A toy trained on single steps without noise, far longer and farther than it can follow."""
    model = build_toy_model().train()
    images, labels = draw_toy_images(160, seed=1)
    context = Context(
        torch.Generator().manual_seed(0), torch.device("cpu"), TOY_CLASSES, epochs=1, note=lambda line: None
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1.5e-2)
    for step in range(STEPS):
        # At the whole budget from the first step on, it learns nothing at all.
        defense = NoiseFGSM(eps=EPS * min(1, (step + 1) / RAMP), noise=0.0)
        optimizer.zero_grad()
        defense.loss(model, images, labels, context).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def judged() -> Judge:
    """The measures of one overfitted network, judged as the cell of any defense."""
    model = overfitted()
    images, labels = draw_toy_images(160, seed=2)
    taken = measured(model, images, labels, "fgsm,pgd", EPS, AttackProtocol(), trust=False, facts={})
    batches = ImageBatches(images, labels, 50, images.device)

    def as_cell_of(defense: str) -> Sequence[Measured]:
        of_cell = [
            replace(each, record=each.record.model_copy(update={"defense": defense})) for each in taken
        ]
        records = judge(model, batches, of_cell, AttackProtocol()).records
        return [replace(each, record=record) for each, record in zip(of_cell, records, strict=True)]

    return as_cell_of


def test_the_network_has_really_overfitted(judged: Judge) -> None:
    """FGSM leaves more than half of the right images, but fewer than nine tenths; PGD leaves nearly none."""
    clean, fgsm, pgd = (measure.top1 for measure in judged("none"))
    kept = (clean & fgsm).sum() / clean.sum()
    assert clean.mean() > 0.4
    assert 0.5 < kept < 0.9
    assert (clean & fgsm & pgd).sum() < 0.1 * (clean & fgsm).sum()


@pytest.mark.parametrize(
    "defense",
    [
        f"n-fgsm:eps={EPS},noise=0",
        f"free-at:eps={EPS}",
        f"fgsm-at:eps={EPS}",
        f"bbox-crop+n-fgsm:eps={EPS}",
        f"fgsm-static+awp+free-at:eps={EPS}",
    ],
)
def test_overfitting_to_a_single_step_is_flagged_whatever_the_defense_is_called(
    judged: Judge, defense: str
) -> None:
    _, fgsm, pgd = (measure.record.trust for measure in judged(defense))
    assert [reason.code for reason in fgsm] == [TrustCode.catastrophic_overfitting]
    assert pgd == ()


@pytest.mark.parametrize(
    "defense", ["none", f"pgd-at:eps={EPS}", f"fgsm-static:eps={EPS}", "augment+fgsm-static", "fgsm-mine"]
)
def test_other_training_is_held_to_the_bounds_of_any_network(judged: Judge, defense: str) -> None:
    """Images that are made once on another model are no training on single steps."""
    assert [measure.record.trust for measure in judged(defense)][1:] == [(), ()]


@pytest.mark.parametrize(
    ("defense", "single_step"),
    [
        ("fgsm-at", True),
        ("n-fgsm", True),
        ("free-at", True),
        ("bbox-crop+n-fgsm", True),
        ("free-at+jpeg", True),
        ("none", False),
        ("fgsm-static", False),
        ("pgd-at:steps=1", False),
        ("awp+trades", False),
    ],
)
def test_a_combination_is_single_step_if_one_of_its_parts_is(defense: str, single_step: bool) -> None:
    assert parse_defense(defense).single_step is single_step
