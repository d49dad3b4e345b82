"""The stand that the trust checks are measured on: every part of ``perf/trust`` runs, at toy size."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toys import TOY_CLASSES, Toy, draw_toy_images

from robustbench_tin.data import Dataset, Split
from robustbench_tin.errors import DataError

sys.path.append(str(Path(__file__).parents[2]))  # perf is no part of the package

from perf.trust import cost, honest, networks, zoo
from perf.trust.configurations import CONFIGURATIONS, Configuration


@pytest.fixture
def whole() -> Dataset:
    """Two classes of 64-pixel images, one dark and one bright, under the ids of the zoo's smallest task."""
    generator = np.random.default_rng(0)

    def split(each: int) -> Split:
        labels = np.arange(2 * each) % 2
        levels = (60 + 100 * labels)[:, None, None, None] + generator.integers(0, 40, (2 * each, 3, 64, 64))
        return Split(levels.astype(np.uint8), labels.astype(np.int64))

    ids = tuple(zoo.TWO)
    return Dataset("made-up", "here", ids, ids, split(130), split(20), fingerprint="0" * 16)


def test_there_are_enough_configurations_and_each_has_a_name() -> None:
    assert len({one.name for one in CONFIGURATIONS}) == len(CONFIGURATIONS) >= 30
    assert {one.network for one in CONFIGURATIONS} == {*zoo.ANIMALS, "toy"}
    budgets = [255 * eps for one in CONFIGURATIONS if one.norm == "linf" for eps in one.eps]
    assert min(budgets) == pytest.approx(0.25)
    assert max(budgets) == pytest.approx(64)
    assert {20, 250} <= {one.images for one in CONFIGURATIONS} <= set(range(20, 251))


@pytest.mark.parametrize("one", CONFIGURATIONS, ids=lambda one: one.name)
def test_a_configuration_answers_as_its_network_does(toy: Toy, one: Configuration) -> None:
    model = one.around(toy.model)
    with torch.no_grad():
        plain, answers = toy.model(toy.images), model(toy.images)
    assert answers.shape == plain.shape
    if one.wrap is None:
        assert torch.equal(answers, plain if one.scale == 1 else one.scale * plain)
    if one.eot > 1:
        assert not torch.equal(answers, model(toy.images))


@pytest.mark.parametrize("attack", sorted({one.attacks for one in CONFIGURATIONS}))
def test_every_attack_gets_a_verdict(attack: str) -> None:
    one = Configuration("toy", (0.02,), 20, attack)
    figures = list(honest.measured([one], lambda _: honest.toy()))
    assert [figure.attack for figure in figures] == attack.split(",")
    assert all(figure.clean >= figure.attacked for figure in figures)
    assert [figure.verdict for figure in figures] == ["ok"] * len(figures)


def test_a_flagged_figure_is_counted_and_ends_with_1(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    broken = cost.Broken(toy.model)
    images, labels = draw_toy_images(200, seed=2)
    one = Configuration("toy", (0.03,), 200)
    loaded = broken, (images * 255).round().to(torch.uint8), labels, TOY_CLASSES
    flagged = list(honest.measured([one], lambda _: loaded))
    assert all(figure.strong is not None for figure in flagged)
    assert honest.report(flagged, 1) == 1
    assert "of 2 figures of 1 configurations are flagged" in capsys.readouterr().out
    assert honest.report(honest.measured([one], lambda _: honest.toy()), 1) == 0
    assert "0 of 2 figures" in capsys.readouterr().out


@pytest.mark.parametrize("build", [animal.build for animal in zoo.ANIMALS.values()])
def test_an_architecture_gives_logits_and_follows_its_images(build: zoo.Builder) -> None:
    torch.manual_seed(0)
    network = build(5, 64).eval()
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    logits = network(images)
    assert logits.shape == (2, 5)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images)
    assert (gradient.flatten(1).abs().amax(dim=1) > 0).all()


def test_the_zoo_keeps_what_it_trains_and_evaluates_on_other_images(
    whole: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    animal = zoo.Animal("two", networks.resnet, 2, "pgd-at:steps=1")
    monkeypatch.setitem(zoo.ANIMALS, "small", animal)
    monkeypatch.setitem(zoo.TASKS, "two", zoo.Task(tuple(zoo.TWO), 130, 30, images=90))
    zoo._make("small", animal, whole, argparse.Namespace(out=tmp_path, weights=None))
    network, images, labels, classes = zoo.load(tmp_path, "small")
    assert classes == 2
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert images.shape == (90, 3, 64, 64)
    assert not network.training
    split, *_ = zoo.divided(whole, zoo.TASKS["two"])
    assert len(split) == 200
    trained_on = {image.tobytes() for image in split.images}
    assert not trained_on & {image.numpy().tobytes() for image in images}
    with torch.no_grad():
        right = network(images.float() / 255).argmax(dim=1) == labels
    assert right.float().mean() > 0.9


def test_a_data_set_with_too_few_training_images_is_refused(whole: Dataset) -> None:
    with pytest.raises(DataError, match="train_per_class got 500, but"):
        zoo.divided(whole, zoo.TASKS["two"])


def test_costs_are_shares_of_what_is_judged(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = dict.fromkeys(cost.CASES, honest.toy())
    costs = cost.compare(loaded, images=40, rounds=2)
    assert [len(runs) for runs in costs.values()] == [2] * len(cost.CASES)
    for runs in costs.values():
        assert runs[0].check_passes == runs[1].check_passes > 0
        assert len(runs[0].verdicts) == 4
    # FGSM: one gradient for both budgets, whose answer is the clean one, and an answer at each.
    # PGD: ten gradients and an answer at each.
    assert costs["standard"][0].attack_passes == 40 * (2 + 2) + 40 * 2 * (20 + 1)
    cost.report(costs, 40)
    assert capsys.readouterr().out.count("\n| ") == len(cost.CASES) + 1


def test_a_wrong_sign_is_on_the_way_back_only(toy: Toy) -> None:
    images = toy.images[:4].clone().requires_grad_()
    broken: nn.Module = cost.Broken(toy.model)
    assert torch.equal(broken(images), toy.model(images))
    gradients = [torch.autograd.grad(model(images).sum(), images)[0] for model in (broken, toy.model)]
    assert torch.equal(gradients[0], -gradients[1])
