"""FGSM and PGD against the Adversarial Robustness Toolbox, on the same network and images.

Batches of 64: ART takes the mean of the losses and this project takes their sum; a division by a
power of two rounds nothing. Allowed differences:

- linf: ART adds its step and clips in another order, in float32 without directed rounding, so a value
  may differ by two units in the last place (1.2e-7), or by 2 × step if the gradient's sign is that
  of rounding noise; at most 1 value in 1,000 may do so.
- l2: the direction is normalised in another order of operations (and by older ART with 1e-7 added to
  the length): 2e-6 a value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import TOY_CLASSES, Toy

from robustbench_tin import perturb
from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.metrics import in_top

TWO_UNITS = 1.2e-7
EPS = {"linf": (2 / 255, 8 / 255, 0.1), "l2": (0.1, 0.5, 1.5)}


@pytest.fixture(scope="module")
def art_classifier(toy: Toy) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        toy.model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 16, 16),
        nb_classes=TOY_CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def norm_of_art(norm: str) -> float:
    return np.inf if norm == "linf" else 2


def art_fgsm(classifier: Any, toy: Toy, norm: str, eps: float) -> Tensor:
    from art.attacks.evasion import FastGradientMethod

    attack = FastGradientMethod(classifier, norm=norm_of_art(norm), eps=eps, batch_size=64)
    return torch.from_numpy(attack.generate(toy.images.numpy(), toy.labels.numpy()))


def art_pgd(
    classifier: Any, toy: Toy, norm: str, eps: float, alpha: float, steps: int, starts: int
) -> Tensor:
    from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
        ProjectedGradientDescentPyTorch,
    )

    attack = ProjectedGradientDescentPyTorch(
        classifier,
        norm=norm_of_art(norm),
        eps=eps,
        eps_step=alpha,
        max_iter=steps,
        num_random_init=starts,
        batch_size=64,
        verbose=False,
    )
    return torch.from_numpy(attack.generate(toy.images.numpy(), toy.labels.numpy()))


def assert_same_images(ours: Tensor, theirs: Tensor, clean: Tensor, norm: str) -> None:
    assert not torch.equal(ours, clean)
    difference = (ours - theirs).abs()
    if norm == "l2":
        assert difference.max() <= 2e-6
    else:
        assert (difference > TWO_UNITS).float().mean() <= 1e-3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_moves_images_as_art_does(toy: Toy, art_classifier: Any, norm: str) -> None:
    ours = perturb(toy.model, toy.images, toy.labels, "fgsm", EPS[norm], norm)
    for eps, images in zip(EPS[norm], ours, strict=True):
        assert_same_images(images, art_fgsm(art_classifier, toy, norm, eps), toy.images, norm)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
@pytest.mark.parametrize(("norm", "eps", "alpha"), [("linf", 8 / 255, 2 / 255), ("l2", 0.5, 0.2)])
def test_pgd_from_the_clean_image_moves_step_by_step_as_art_does(
    toy: Toy, art_classifier: Any, norm: str, eps: float, alpha: float, steps: int
) -> None:
    spec = f"pgd:alpha={alpha},random_start=false,steps={steps}"
    ours = perturb(toy.model, toy.images, toy.labels, spec, eps, norm)
    theirs = art_pgd(art_classifier, toy, norm, eps, alpha, steps, starts=0)
    assert_same_images(ours, theirs, toy.images, norm)


@pytest.mark.parametrize(("norm", "eps", "alpha"), [("linf", 8 / 255, 2 / 255), ("l2", 0.5, 0.15)])
def test_pgd_from_random_starts_keeps_the_accuracy_that_art_keeps(
    toy: Toy, art_classifier: Any, norm: str, eps: float, alpha: float
) -> None:
    """Over four starts each; only images at the edge of their ball depend on the start, here a few of 64."""

    def kept(images: Tensor) -> float:
        with AttackedModel(toy.model) as attacked:
            return float(in_top(attacked.logits(images), toy.labels, k=1).float().mean())

    attack = parse_attack(f"pgd:alpha={alpha}")
    with AttackedModel(toy.model) as attacked:
        ours = [
            kept(perturb_images(attack, attacked, toy.images, toy.labels, [eps], norm=norm, seed=seed)[0])
            for seed in range(4)
        ]
    state = np.random.get_state()  # noqa: NPY002 - ART draws from NumPy's global generator
    np.random.seed(0)  # noqa: NPY002
    theirs = [kept(art_pgd(art_classifier, toy, norm, eps, alpha, steps=10, starts=1)) for _ in range(4)]
    np.random.set_state(state)  # noqa: NPY002
    assert 0.1 < np.mean(ours) < 0.9
    assert abs(np.mean(ours) - np.mean(theirs)) <= 2 / 64
