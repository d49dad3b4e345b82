"""Edge cases of attacks: few and many classes, one image, nothing to do, pixels at 0 and 1."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from light_attacks import EVERY_ATTACK, SPECS, SPENT, UNTIL_BROKEN
from torch import Tensor, nn
from toys import Toy

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.metrics import in_top

BOTH_NORMS = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.6)])
NOISE = [spec for spec in SPECS if parse_attack(spec).name == "noise"]


class FirstClasses(nn.Module):
    """A network's answer among its first classes alone."""

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)[:, : self.classes]
        return logits


def few_classes(toy: Toy, classes: int) -> tuple[nn.Module, Tensor, Tensor]:
    chosen = toy.labels < classes
    return FirstClasses(toy.model, classes), toy.images[chosen][:8], toy.labels[chosen][:8]


def many_classes(classes: int = 200) -> tuple[nn.Module, Tensor, Tensor]:
    """A random network that is right about its three images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, classes)
        )
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model, images, model(images).argmax(dim=1)


def hits(model: nn.Module, images: Tensor, labels: Tensor, k: int = 1) -> float:
    with AttackedModel(model) as attacked:
        return float(in_top(attacked.logits(images), labels, k).double().mean())


def measured(frame: pd.DataFrame) -> pd.Series:
    row = frame.iloc[-1]
    assert row.status == "ok"
    assert row.eps > 0
    return row


@pytest.mark.parametrize("name", SPENT)
def test_nothing_takes_an_image_out_of_its_only_class(toy: Toy, name: str) -> None:
    model, images, labels = few_classes(toy, 1)
    assert measured(evaluate(model, images, labels, [name], 0.1).records).top1 == 1


@pytest.mark.parametrize("name", UNTIL_BROKEN)
def test_an_attack_until_broken_refuses_a_single_class(toy: Toy, name: str) -> None:
    model, images, labels = few_classes(toy, 1)
    for call in (evaluate, perturb):
        with pytest.raises(InvalidSettingError, match="with 1 classes, so no attack can succeed"):
            call(model, images, labels, name if call is perturb else [name], 0.1)


@EVERY_ATTACK
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes_are_attacked_like_many(toy: Toy, name: str, classes: int) -> None:
    model, images, labels = few_classes(toy, classes)
    assert hits(model, images, labels) == 1
    row = measured(evaluate(model, images, labels, [name], 0.5).records)
    # Noise is no attack.
    assert row.top1 <= (1.0 if name in NOISE else 0.5)
    assert row.classes == classes
    assert ("stands in for DLR" in row.remarks) == (
        ("apgd-dlr" in name and classes < 3) or (("apgd-t" in name or "autoattack" in name) and classes < 4)
    )


@EVERY_ATTACK
@BOTH_NORMS
def test_two_hundred_classes(name: str, norm: str, eps: float) -> None:
    model, images, labels = many_classes()
    row = measured(evaluate(model, images, labels, [name], eps, norm).records)
    assert row.classes == 200
    assert row["mode"] == parse_attack(name).mode


@pytest.mark.parametrize("name", ["apgd-t", "fab-t", "autoattack"])
def test_of_two_hundred_classes_nine_are_targets(name: str) -> None:
    """An image that survives takes every stage, so its backward passes tell how many there were."""
    model, images, labels = many_classes()
    budget = "queries=1,steps=1" if name == "autoattack" else "steps=1"
    row = measured(evaluate(model, images, labels, [f"{name}:{budget}"], 1e-9, search="exact").records)
    assert row.top1 == 1
    # APGD takes a gradient more than it has steps.
    expected = {"apgd-t": 9 * 2, "fab-t": 9, "autoattack": 2 + 9 * 2 + 9}[name]
    assert row.backward_passes == len(images) * expected


@EVERY_ATTACK
@BOTH_NORMS
def test_one_image(toy: Toy, name: str, norm: str, eps: float) -> None:
    image, label = toy.images[:1], toy.labels[:1]
    row = measured(evaluate(toy.model, image, label, [name], eps, norm, search="fixed").records)
    moved = perturb(toy.model, image, label, name, eps, norm, search="fixed")
    assert moved.shape == (1, 3, 16, 16)
    assert row.top1 == hits(toy.model, moved, label)


@EVERY_ATTACK
def test_images_that_are_all_wrong_already_stay_wrong(toy: Toy, name: str) -> None:
    wrong = toy.model(toy.images).argmin(dim=1)
    row = measured(evaluate(toy.model, toy.images, wrong, [name], 0.01).records)
    assert row.top1 == 0
    if name in UNTIL_BROKEN:
        assert (row.forward_passes, row.backward_passes) == (0, 0)
        assert torch.equal(perturb(toy.model, toy.images, wrong, name, 0.01), toy.images)


@EVERY_ATTACK
@BOTH_NORMS
def test_pixels_at_the_ends_of_their_range(toy: Toy, name: str, norm: str, eps: float) -> None:
    """Half of the directions lead out of the box; an attack still finds the other half."""
    images = toy.images[:12].round()
    labels = toy.model(images).argmax(dim=1)
    moved = perturb(toy.model, images, labels, name, 5 * eps, norm)
    assert moved.min() >= 0
    assert moved.max() <= 1
    if name in SPECS and name not in NOISE:
        assert hits(toy.model, moved, labels) < 1


@EVERY_ATTACK
@BOTH_NORMS
@pytest.mark.parametrize("eight_bit", [False, True])
def test_the_images_returned_give_the_accuracy_that_is_reported(
    toy: Toy, name: str, norm: str, eps: float, eight_bit: bool
) -> None:
    images, labels = (toy.images[:16] * 255).round().byte(), toy.labels[:16]
    # Not the fastest form: two calls may find another one fastest.
    protocol = {"seed": 3, "eight_bit": eight_bit, "batch_size": 6, "search": "fixed"}
    row = measured(evaluate(toy.model, images, labels, [name], eps, norm, **protocol).records)
    moved = perturb(toy.model, images, labels, name, eps, norm, **protocol)
    assert row.top1 == hits(toy.model, moved, labels)
    if name in SPENT:
        assert row.top5 == hits(toy.model, moved, labels, k=5)
    if eight_bit:
        as_saved = (moved * 255).round().byte()
        assert torch.equal(as_saved.float() / 255, moved)
