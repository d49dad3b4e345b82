"""What every registered defense owes to the loop, and how defenses combine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import TOY_CLASSES, build_toy_model, draw_toy_images

from robustbench_tin import defenses
from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense, registry
from robustbench_tin.errors import DataError, InvalidSettingError, UnknownNameError
from robustbench_tin.registry import load_plugin
from robustbench_tin.runtime import Runtime
from robustbench_tin.training.context import Context
from robustbench_tin.training.loop import Recipe, train

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
    images, labels = draw_toy_images(24, seed=5)
    boxes = np.tile(np.array([2, 3, 12, 10], np.int32), (24, 1))
    return Split((images * 255).round().byte().numpy(), labels.numpy(), boxes)


@pytest.fixture
def context() -> Context:
    return context_of(seed=0)


def context_of(seed: int) -> Context:
    generator = torch.Generator().manual_seed(seed)
    return Context(
        generator,
        torch.device("cpu"),
        TOY_CLASSES,
        epochs=1,
        note=lambda line: None,
        trained=lambda name: build_toy_model(7),
    )


def weights_after(spec: str, split: Split, seed: int) -> Tensor:
    """All weights after at least two steps."""
    model = build_toy_model()
    record = train(
        model,
        split,
        parse_defense(spec),
        Recipe(epochs=1, batch_size=12, lr=1e-2),
        Runtime("cpu"),
        num_classes=TOY_CLASSES,
        seed=seed,
        trained=lambda name: build_toy_model(7),
    )
    assert record.steps >= 2
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@EVERY_DEFENSE
def test_training_moves_the_weights_and_repeats_itself(spec: str, split: Split) -> None:
    start = torch.cat([weight.detach().flatten() for weight in build_toy_model().parameters()])
    one = weights_after(spec, split, seed=1)
    torch.manual_seed(99)
    assert torch.equal(weights_after(spec, split, seed=1), one)
    assert not torch.equal(weights_after(spec, split, seed=2), one)
    assert not torch.equal(one, start)
    assert torch.isfinite(one).all()


@EVERY_DEFENSE
def test_a_prepared_set_is_a_training_set(spec: str, split: Split, context: Context) -> None:
    images, labels = split.images.copy(), split.labels.copy()
    parse_defense(spec).check(split)
    prepared = parse_defense(spec).prepare(split, context)
    assert prepared.images.dtype == np.uint8
    assert prepared.images.shape[1:] == split.images.shape[1:]
    assert prepared.images.flags.c_contiguous
    assert prepared.labels.dtype == np.int64
    assert prepared.labels.shape == (len(prepared.images),)
    assert set(prepared.labels) <= set(range(TOY_CLASSES))
    assert np.array_equal(split.images, images)
    assert np.array_equal(split.labels, labels)


@EVERY_DEFENSE
def test_an_augmented_batch_is_a_batch(spec: str, split: Split, context: Context) -> None:
    batch, labels = torch.from_numpy(split.images).float() / 255, torch.from_numpy(split.labels)
    moved, their_labels = parse_defense(spec).augment(batch, labels, context)
    assert moved.shape == batch.shape
    assert moved.dtype == torch.float32
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    if their_labels.ndim == 1:
        assert their_labels.shape == labels.shape
        assert their_labels.dtype == torch.int64
    else:
        assert their_labels.shape == (len(labels), TOY_CLASSES)
        assert their_labels.dtype == torch.float32
        assert torch.allclose(their_labels.sum(dim=1), torch.ones(len(labels)))
        assert float(their_labels.min()) >= 0


@EVERY_DEFENSE
def test_the_loss_is_one_finite_number_with_a_gradient(spec: str, split: Split, context: Context) -> None:
    batch, labels = torch.from_numpy(split.images).float() / 255, torch.from_numpy(split.labels)
    model = build_toy_model()
    loss = parse_defense(spec).loss(model, batch, labels, context)
    assert loss.shape == ()
    loss.backward()
    assert all(bool(torch.isfinite(weight.grad).all()) for weight in model.parameters())
    assert any(float(weight.grad.abs().max()) > 0 for weight in model.parameters())


@EVERY_DEFENSE
def test_what_runs_at_test_time_maps_images_to_logits(spec: str) -> None:
    images, _ = draw_toy_images(5, seed=0)
    assert parse_defense(spec).wrap(build_toy_model())(images).shape == (5, TOY_CLASSES)


@EVERY_DEFENSE
def test_the_spec_builds_the_same_defense_again(spec: str) -> None:
    defense = parse_defense(spec)
    assert parse_defense(defense.spec) == defense
    assert parse_defense(defense.spec).spec == defense.spec == str(defense)
    assert defense.relative_cost >= 1


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
        ("none+augment", "'none' combines with nothing"),
        ("augment+none", "'none' combines with nothing"),
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
