"""The contract of every registered defense with the training loop, and how defenses combine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import build_toy_model

from robustbench_tin import defenses
from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense, registry
from robustbench_tin.errors import DataError, InvalidSettingError, UnknownNameError
from robustbench_tin.registry import load_plugin
from robustbench_tin.testing.checks import hold_defense_rule
from robustbench_tin.testing.contracts import EVERY_DEFENSE_RULE
from robustbench_tin.testing.defense_case import DefenseCase, context_of, small_split
from robustbench_tin.testing.rules import Rule
from robustbench_tin.training.context import Context

EVERY_DEFENSE = pytest.mark.parametrize(
    "spec",
    [
        *registry.names(),
        "bbox-crop+augment+fgsm-at",
        "augment+fgsm-at:eps=0.01",
        "mixup+cutmix+random-erasing+fgsm-at",
        "fgsm-at+jpeg",
        "awp+trades:steps=2",
        "augment+awp+pgd-at:steps=2",
        "awp+free-at",
        "mart:norm=l2,steps=2",
        "jpeg+smoothing:n0=5",
    ],
)


@pytest.fixture
def split() -> Split:
    return small_split()


@pytest.fixture
def context() -> Context:
    return context_of(seed=0)


@EVERY_DEFENSE
@EVERY_DEFENSE_RULE
def test_it_keeps_the_contract(spec: str, rule: Rule[DefenseCase]) -> None:
    hold_defense_rule(rule, parse_defense(spec))


SECOND_LOSS = """
from dataclasses import dataclass
from robustbench_tin import defenses

@defenses.register("smooth")
@dataclass(frozen=True)
class Smooth(defenses.Defense):
    "A loss of its own."
    def loss(self, classifier, images, labels, context):
        return classifier(images).square().mean()
"""


def test_two_losses_are_refused_by_name(write_plugin: Callable[..., Path]) -> None:
    load_plugin(write_plugin(SECOND_LOSS, "second_loss.py"))
    with pytest.raises(InvalidSettingError, match=r"'fgsm-at' and 'smooth' each define the training loss"):
        parse_defense("fgsm-at+augment+smooth")
    assert parse_defense("augment+smooth").defines_loss


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("none+augment", "'none' cannot be combined with another"),
        ("augment+none", "'none' cannot be combined with another"),
        ("augment+augment:flip=no", "name each defense once"),
        ("augment+", "no name"),
        ("+augment", "no name"),
        ("augment:zoom=1", "got zoom=1.0; expected 0 to below 1"),
        ("augment:zoom=nan", "zoom"),
        ("augment:rotation=200", "rotation"),
        ("augment:shift=-0.1", "shift"),
        ("fgsm-static:eps=0.003", "got eps=0.003; expected 1/255 or more"),
        ("fgsm-static:eps=nan", "eps"),
        ("augment:shear=90", "shear"),
        ("randaugment:magnitude=31", "magnitude=31; expected 0 to 30"),
        ("randaugment:ops=0", "ops"),
        ("mixup:alpha=0", "alpha"),
        ("cutmix:alpha=nan", "alpha"),
        ("cutmix:probability=0", "probability"),
        ("random-erasing:probability=1.5", "probability"),
        ("fgsm-at:eps=0", "eps"),
        ("fgsm-at:eps=inf", "eps"),
        ("fgsm-at:alpha=0", "alpha"),
        ("fgsm-at:alpha=nan", "alpha"),
    ],
)
def test_what_makes_no_defense_is_refused_in_one_line(spec: str, reason: str) -> None:
    with pytest.raises(InvalidSettingError, match=reason) as caught:
        parse_defense(spec)
    assert "\n" not in str(caught.value)


def test_unknown_names_list_the_close_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown defense 'fgsm-ta'; did you mean 'fgsm-at'"):
        parse_defense("augment+fgsm-ta")


def test_a_part_that_needs_boxes_says_so_in_a_combination_too(split: Split) -> None:
    for spec in ("bbox-crop", "augment+bbox-crop"):
        with pytest.raises(DataError, match="'bbox-crop' got a data set without bounding boxes"):
            parse_defense(spec).check(Split(split.images, split.labels))


def test_the_hooks_of_a_combination_run_from_left_to_right(split: Split, context: Context) -> None:
    class Named(nn.Module):
        def __init__(self, inner: nn.Module, name: str) -> None:
            super().__init__()
            self.inner, self.name = inner, name

    calls: list[str] = []

    @dataclass(frozen=True)
    class Recorder(defenses.Defense):
        def check(self, train: Split) -> None:
            calls.append(f"{self.name} checks")

        def prepare(self, train: Split, context: Context) -> Split:
            calls.append(f"{self.name} prepares {len(train)}")
            return train.take(np.arange(len(train) - 1))

        def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
            calls.append(f"{self.name} augments {len(images)}")
            return images[1:], labels[1:]

        def wrap(self, classifier: nn.Module) -> nn.Module:
            return Named(classifier, self.name)

    for name in ("first", "second"):
        defenses.register(name)(dataclass(frozen=True)(type(name, (Recorder,), {})))
    both = parse_defense("first+second")
    both.check(split)
    assert len(both.prepare(split, context)) == 22
    assert len(both.augment(torch.zeros(5, 3, 4, 4), torch.zeros(5), context)[0]) == 3
    assert calls == [
        "first checks",
        "second checks",
        "first prepares 24",
        "second prepares 23",
        "first augments 5",
        "second augments 4",
    ]
    outer = both.wrap(build_toy_model())
    assert (outer.name, outer.inner.name) == ("second", "first")


def test_a_combination_without_a_loss_trains_on_cross_entropy(split: Split, context: Context) -> None:
    batch, labels = torch.from_numpy(split.images).float() / 255, torch.from_numpy(split.labels)
    model = build_toy_model()
    defense = parse_defense("bbox-crop+augment")
    assert not defense.defines_loss
    assert torch.equal(
        defense.loss(model, batch, labels, context), functional.cross_entropy(model(batch), labels)
    )


def test_a_combination_uses_the_loss_of_the_part_that_has_one(split: Split) -> None:
    batch, labels = torch.from_numpy(split.images).float() / 255, torch.from_numpy(split.labels)
    model = build_toy_model()
    combined = parse_defense("augment+fgsm-at").loss(model, batch, labels, context_of(3))
    assert torch.equal(combined, parse_defense("fgsm-at").loss(model, batch, labels, context_of(3)))
