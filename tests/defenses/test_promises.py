"""Adversarial training fulfils its purpose: more images right under attack than plain training."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from toys import TOY_CLASSES, build_toy_model, draw_toy_images

from robustbench_tin import perturb
from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense
from robustbench_tin.metrics import in_top
from robustbench_tin.runtime import Runtime
from robustbench_tin.training.loop import Recipe, train


@cache
def robust_accuracy(spec: str, norm: str, eps: float, epochs: int) -> float:
    """Under PGD-20, of a toy network, after some epochs on clean images and some of the defense."""
    images, labels = draw_toy_images(320, seed=1)
    split = Split((images * 255).round().byte().numpy(), labels.numpy())
    model = build_toy_model()
    train(
        model,
        split,
        parse_defense(spec),
        Recipe(epochs=epochs, batch_size=40, lr=1e-2, clean_epochs=3),
        Runtime("cpu"),
        num_classes=TOY_CLASSES,
        seed=0,
    )
    held, held_labels = draw_toy_images(300, seed=2)
    moved = perturb(model, held, held_labels, "pgd:steps=20", eps=eps, norm=norm)
    with torch.no_grad():
        return float(in_top(model(moved), held_labels, 1).float().mean())


@pytest.mark.parametrize(
    ("spec", "epochs"),
    [
        ("fgsm-at", 8),
        ("n-fgsm", 8),
        ("free-at:replays=2", 20),
        ("pgd-at:steps=3,alpha=0.015", 8),
        ("trades:steps=3,alpha=0.015", 8),
        ("mart:steps=3,alpha=0.015", 8),
        ("awp+pgd-at:steps=3,alpha=0.015", 8),
    ],
)
def test_it_beats_plain_training_beyond_noise(spec: str, epochs: int) -> None:
    name, _, settings = spec.partition(":")
    spec = f"{name}:{','.join(filter(None, ['eps=0.03', settings]))}"
    assert_beats_plain_training(spec, "linf", 0.03, epochs)


@pytest.mark.parametrize("name", ["pgd-at", "trades", "mart"])
def test_it_does_so_under_l2(name: str) -> None:
    assert_beats_plain_training(f"{name}:norm=l2,eps=0.6,steps=3", "l2", 0.6, 8)


def assert_beats_plain_training(spec: str, norm: str, eps: float, epochs: int) -> None:
    plain, robust = robust_accuracy("none", norm, eps, epochs), robust_accuracy(spec, norm, eps, epochs)
    # Three standard errors of a difference of two shares of 300 images, at the most.
    assert robust > plain + 3 * (2 * 0.25 / 300) ** 0.5, (plain, robust)
