"""MI-FGSM against torchattacks (linf) and ART (linf and l2), step by step.

Allowed differences: as in test_against_art.py. torchattacks divides by a mean of absolute gradients, the
paper by their sum; the sum over steps has the same direction. If an image's whole gradient is zero,
torchattacks divides by zero and returns NaN.
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
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.metrics import in_top

STEPS = pytest.mark.parametrize("steps", [1, 2, 3, 10])
DECAY = pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])


def assert_same_images(ours: Tensor, theirs: Tensor, clean: Tensor, norm: str) -> None:
    assert not torch.equal(ours, clean)
    difference = (ours - theirs).abs()
    if norm == "l2":
        assert difference.max() <= 2e-6
    else:
        assert (difference > 1.2e-7).float().mean() <= 1e-3


@STEPS
@DECAY
def test_it_moves_images_as_torchattacks_does(toy: Toy, steps: int, decay: float) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    eps, alpha = 8 / 255, 2 / 255
    theirs = torchattacks.MIFGSM(toy.model, eps=eps, alpha=alpha, steps=steps, decay=decay)(
        toy.images, toy.labels
    )
    spec = f"mi-fgsm:alpha={alpha},decay={decay},steps={steps}"
    ours = perturb(toy.model, toy.images, toy.labels, spec, eps)
    assert_same_images(ours, theirs, toy.images, "linf")


@STEPS
@DECAY
@pytest.mark.parametrize(("norm", "eps", "alpha"), [("linf", 8 / 255, 2 / 255), ("l2", 0.5, 0.2)])
def test_it_moves_images_as_art_does(
    toy: Toy, norm: str, eps: float, alpha: float, steps: int, decay: float
) -> None:
    from art.attacks.evasion import MomentumIterativeMethod
    from art.estimators.classification import PyTorchClassifier

    classifier: Any = PyTorchClassifier(
        toy.model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 16, 16),
        nb_classes=TOY_CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = MomentumIterativeMethod(
        classifier,
        norm=np.inf if norm == "linf" else 2,
        eps=eps,
        eps_step=alpha,
        decay=decay,
        max_iter=steps,
        batch_size=64,
        verbose=False,
    )
    theirs = torch.from_numpy(attack.generate(toy.images.numpy(), toy.labels.numpy()))
    spec = f"mi-fgsm:alpha={alpha},decay={decay},steps={steps}"
    ours = perturb(toy.model, toy.images, toy.labels, spec, eps, norm)
    assert_same_images(ours, theirs, toy.images, norm)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_momentum_it_is_pgd_from_the_clean_image(toy: Toy, norm: str) -> None:
    one, other = (
        perturb(toy.model, toy.images, toy.labels, f"{spec},alpha=0.01,steps=5", 0.05, norm)
        for spec in ("mi-fgsm:decay=0", "pgd:random_start=false")
    )
    assert (one - other).abs().max() <= 2e-6


def test_the_default_step_is_a_tenth_of_the_ball(toy: Toy) -> None:
    default = perturb(toy.model, toy.images, toy.labels, "mi-fgsm", 0.04)
    assert torch.equal(
        default, perturb(toy.model, toy.images, toy.labels, f"mi-fgsm:alpha={0.04 / 10}", 0.04)
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pixels_and_images_without_a_gradient_stay(norm: str) -> None:
    class Saturated(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen = (images[..., 0].flatten(1).sum(dim=1, keepdim=True) - 6).relu()
            return torch.cat([seen, -seen], dim=1)

    dark, bright = torch.full((1, 3, 4, 4), 0.2), torch.full((1, 3, 4, 4), 0.7)
    images = torch.cat([dark, bright])
    moved = perturb(Saturated(), images, [0, 0], "mi-fgsm", 0.1, norm)
    assert torch.equal(moved[0], dark[0])
    assert torch.equal(moved[1, ..., 1:], bright[0, ..., 1:])
    assert (moved[1, ..., 0] < 0.7).all()


def test_it_fools_a_network_that_was_right(toy: Toy) -> None:
    clean, moved = perturb(toy.model, toy.images, toy.labels, "mi-fgsm", (0.0, 0.1))
    with AttackedModel(toy.model) as attacked:
        assert in_top(attacked.logits(clean), toy.labels, k=1).float().mean() > 0.9
        assert in_top(attacked.logits(moved), toy.labels, k=1).float().mean() < 0.1


def test_passes_are_the_steps(toy: Toy) -> None:
    attack = parse_attack("mi-fgsm:steps=4")
    with AttackedModel(toy.model) as attacked:
        perturb_images(attack, attacked, toy.images[:5], toy.labels[:5], (0.01, 0.02))
    assert (attacked.forward_passes, attacked.backward_passes) == (2 * 5 * 4, 2 * 5 * 4)
    assert attack.gradients(2) == 2 * 4


@pytest.mark.parametrize("setting", ["steps=0", "alpha=0", "alpha=inf", "decay=-1", "decay=nan"])
def test_settings_out_of_range_are_refused_by_name(setting: str) -> None:
    with pytest.raises(InvalidSettingError, match=rf"attack 'mi-fgsm' got {setting.partition('=')[0]}="):
        parse_attack(f"mi-fgsm:{setting}")
