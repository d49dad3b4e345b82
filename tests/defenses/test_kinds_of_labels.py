"""Soft labels, a sigmoid for each class and label smoothing, under every loss that takes them."""

from __future__ import annotations

import copy

import pytest
import torch
from defense_toys import Fed, context_of
from torch import Tensor
from torch.nn import functional
from toys import TOY_CLASSES, Toy

from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import InvalidSettingError

ONE_LOSS = ["none", "augment", "awp", "fgsm-at", "n-fgsm", "free-at", "pgd-at:steps=2", "awp+pgd-at:steps=2"]


def asked(spec: str, toy: Toy, labels: Tensor, *, one_vs_rest: bool = False) -> tuple[Fed, Tensor]:
    """A trained model, sure enough that labels matter, with the images that it was shown, and the loss."""
    model = Fed(copy.deepcopy(toy.model))
    model.one_vs_rest = one_vs_rest
    return model, parse_defense(spec).loss(model, toy.images, labels, context_of(4, label_smoothing=0.2))


def smoothed(labels: Tensor) -> Tensor:
    return 0.8 * functional.one_hot(labels, TOY_CLASSES) + 0.2 / TOY_CLASSES


@pytest.mark.parametrize("spec", ONE_LOSS)
def test_a_sigmoid_for_each_class_is_trained_one_class_against_the_rest(toy: Toy, spec: str) -> None:
    model, loss = asked(spec, toy, toy.labels, one_vs_rest=True)
    right, target = model.inner(model.shown[-1]).double().sigmoid(), smoothed(toy.labels)
    by_hand = -(target * right.log() + (1 - target) * (1 - right).log()).sum(dim=1).mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-3)


@pytest.mark.parametrize("spec", ["fgsm-at", "n-fgsm", "pgd-at:norm=l2,steps=2"])
def test_images_are_fooled_by_the_loss_that_is_trained(toy: Toy, spec: str) -> None:
    """Under sigmoids a step follows other slopes than under a softmax."""
    sigmoids, _ = asked(spec, toy, toy.labels, one_vs_rest=True)
    softmax, _ = asked(spec, toy, toy.labels)
    assert torch.equal(sigmoids.shown[0], softmax.shown[0])
    assert not torch.equal(sigmoids.shown[-1], softmax.shown[-1])


@pytest.mark.parametrize("one_vs_rest", [False, True])
@pytest.mark.parametrize("spec", ONE_LOSS)
def test_sure_probabilities_are_the_labels(toy: Toy, spec: str, one_vs_rest: bool) -> None:
    sure = functional.one_hot(toy.labels, TOY_CLASSES).float()
    hard, loss = asked(spec, toy, toy.labels, one_vs_rest=one_vs_rest)
    soft, same = asked(spec, toy, sure, one_vs_rest=one_vs_rest)
    for one, other in zip(hard.shown, soft.shown, strict=True):
        # A slope within rounding of zero may have either sign.
        assert float(((one - other).abs() < 1e-6).float().mean()) > 0.99
    assert same.item() == pytest.approx(loss.item(), rel=1e-2)


def test_trades_learns_mixed_labels(toy: Toy) -> None:
    mixed = functional.one_hot(toy.labels, TOY_CLASSES).float().lerp(torch.tensor(1 / TOY_CLASSES), 0.4)
    _, hard = asked("trades:steps=2,beta=0", toy, toy.labels)
    model, soft = asked("trades:steps=2,beta=0", toy, mixed)
    target = 0.8 * mixed + 0.2 / TOY_CLASSES
    by_hand = -(target * model.inner(toy.images).log_softmax(dim=1)).sum(dim=1).mean()
    assert soft.item() == pytest.approx(by_hand.item(), rel=1e-4)
    assert soft.item() > 1.01 * hard.item()


@pytest.mark.parametrize("spec", ["mixup+mart", "mart+augment+cutmix"])
def test_mart_and_mixed_labels_are_refused_before_training(spec: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"'mart' needs one class for each image, but '.*' mixes"):
        parse_defense(spec)


@pytest.mark.parametrize(
    ("spec", "soft", "reason"),
    [
        ("trades", False, "'trades' got a classifier with a sigmoid for each class; expected a softmax"),
        ("augment+mart", False, "'mart' got a classifier with a sigmoid for each class; expected a softmax"),
        ("mart", True, "'mart' got labels as probabilities; expected one class for each image"),
    ],
)
def test_what_a_loss_cannot_honour_it_refuses_in_one_line(
    toy: Toy, spec: str, soft: bool, reason: str
) -> None:
    labels = functional.one_hot(toy.labels, TOY_CLASSES).float() if soft else toy.labels
    with pytest.raises(InvalidSettingError, match=reason) as caught:
        asked(spec, toy, labels, one_vs_rest=not soft)
    assert "\n" not in str(caught.value)
