"""PGD's own parts: its settings, starts and restarts. Its steps are compared in test_against_art.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from toys import Toy

from robustbench_tin import perturb
from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.metrics import in_top


def losses(toy: Toy, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return functional.cross_entropy(toy.model(images), toy.labels, reduction="none")


def fooled(toy: Toy, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return ~in_top(toy.model(images), toy.labels, k=1)


def test_one_step_as_long_as_the_ball_from_the_clean_image_is_fgsm(toy: Toy) -> None:
    pgd = perturb(toy.model, toy.images, toy.labels, "pgd:alpha=0.03,random_start=false,steps=1", 0.03)
    assert torch.equal(pgd, perturb(toy.model, toy.images, toy.labels, "fgsm", 0.03))


def test_the_default_step_is_a_quarter_of_the_ball_at_ten_steps(toy: Toy) -> None:
    default = perturb(toy.model, toy.images, toy.labels, "pgd", 0.04)
    assert torch.equal(
        default, perturb(toy.model, toy.images, toy.labels, f"pgd:alpha={2.5 * 0.04 / 10}", 0.04)
    )


def test_it_fools_no_fewer_than_fgsm(toy: Toy) -> None:
    fgsm = perturb(toy.model, toy.images, toy.labels, "fgsm", 8 / 255)
    pgd = perturb(toy.model, toy.images, toy.labels, "pgd:random_start=false,steps=20", 8 / 255)
    assert fooled(toy, pgd).sum() >= fooled(toy, fgsm).sum()


def test_more_restarts_never_spare_an_image_that_fewer_fooled(toy: Toy) -> None:
    one, three = (
        perturb(toy.model, toy.images, toy.labels, f"pgd:steps=2,restarts={count}", 6 / 255)
        for count in (1, 3)
    )
    assert not (fooled(toy, one) & ~fooled(toy, three)).any()
    same_outcome = fooled(toy, one) == fooled(toy, three)
    assert (losses(toy, three) >= losses(toy, one) - 1e-5)[same_outcome].all()
    assert not torch.equal(one, three)


@pytest.mark.parametrize(
    ("spec", "forward", "backward"),
    [("pgd", 10, 10), ("pgd:steps=3", 3, 3), ("pgd:restarts=2,steps=3", 8, 6)],
)
def test_passes_are_counted_an_image_and_a_budget(toy: Toy, spec: str, forward: int, backward: int) -> None:
    """Restarts add one forward pass each, to tell which start came out worst."""
    attack = parse_attack(spec)
    with AttackedModel(toy.model) as attacked:
        perturb_images(attack, attacked, toy.images[:5], toy.labels[:5], (0.01, 0.02))
    assert (attacked.forward_passes, attacked.backward_passes) == (2 * 5 * forward, 2 * 5 * backward)
    assert attack.gradients(2) == 2 * backward


@pytest.mark.parametrize(
    "setting",
    ["steps=0", "steps=-1", "steps=1.5", "restarts=0", "alpha=0", "alpha=-0.1", "alpha=nan", "alpha=inf"],
)
def test_settings_out_of_range_are_refused_by_name(setting: str) -> None:
    with pytest.raises(InvalidSettingError, match=rf"attack 'pgd' got {setting.partition('=')[0]}="):
        parse_attack(f"pgd:{setting}")


def test_restarts_without_a_random_start_are_refused() -> None:
    with pytest.raises(InvalidSettingError, match="random start"):
        parse_attack("pgd:random_start=no,restarts=2")
