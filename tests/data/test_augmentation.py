"""Augmentation, seen by its effect on ramps, corners and constants."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robustbench_tin.data.augmentation import random_affine

SIDE = 32
ALL = {"rotation": 20.0, "zoom": 0.2, "shift": 0.1, "flip": True}


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def noise() -> Tensor:
    return torch.rand(64, 3, SIDE, SIDE, generator=dice(9))


@pytest.fixture
def ramps() -> Tensor:
    """Rising by 0.01 a pixel to the right and 0.005 downwards: bilinear resampling is exact on it."""
    along = torch.arange(SIDE, dtype=torch.float32)
    ramp = 0.2 + 0.01 * along[None, :] + 0.005 * along[:, None]
    return ramp.expand(64, 3, SIDE, SIDE).contiguous()


def slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Rise a pixel along x and y in the middle of each image; it is the same everywhere there."""
    middle = images[..., 10:22, 10:22].double()
    right, down = middle.diff(dim=-1), middle.diff(dim=-2)
    for rise in (right, down):
        assert float((rise - rise.mean(dim=(1, 2, 3), keepdim=True)).abs().max()) < 1e-5
    return right.mean(dim=(1, 2, 3)), down.mean(dim=(1, 2, 3))


def test_nothing_asked_for_is_nothing_done(noise: Tensor) -> None:
    assert torch.equal(random_affine(noise, dice()), noise)


def test_mirroring_alone_is_exact_and_meets_about_half(noise: Tensor) -> None:
    moved = random_affine(noise, dice(), flip=True)
    stayed = (moved == noise).flatten(1).all(dim=1)
    mirrored = (moved == noise.flip(-1)).flatten(1).all(dim=1)
    assert bool((stayed ^ mirrored).all())
    assert 16 <= int(mirrored.sum()) <= 48


def test_a_shear_slants_the_vertical_and_no_further_than_asked(ramps: Tensor) -> None:
    right, down = slopes(random_affine(ramps, dice(), shear=10))
    assert right.numpy() == pytest.approx(0.01, abs=1e-5)
    slant = (down - 0.005) / 0.01
    assert float(slant.abs().max()) <= math.tan(math.radians(10)) + 1e-3
    assert float(slant.max()) > 0.1
    assert float(slant.min()) < -0.1


def test_a_shift_moves_all_pixels_alike_and_no_further_than_asked(ramps: Tensor) -> None:
    moved = random_affine(ramps, dice(), shift=0.1)
    right, down = slopes(moved)
    assert right.numpy() == pytest.approx(0.01, abs=1e-5)
    assert down.numpy() == pytest.approx(0.005, abs=1e-5)
    change = (moved - ramps)[..., 10:22, 10:22].mean(dim=(1, 2, 3))
    farthest = 0.1 * SIDE * (0.01 + 0.005)
    assert float(change.abs().max()) <= farthest
    assert float(change.max()) > 0.4 * farthest
    assert float(change.min()) < -0.4 * farthest


def test_a_rotation_turns_about_the_middle_and_keeps_scale(ramps: Tensor) -> None:
    moved = random_affine(ramps, dice(), rotation=30)
    right, down = slopes(moved)
    assert torch.hypot(right, down).numpy() == pytest.approx(math.hypot(0.01, 0.005), rel=1e-3)
    turned = torch.rad2deg(torch.atan2(down, right)) - math.degrees(math.atan2(0.005, 0.01))
    assert float(turned.abs().max()) <= 30.01
    assert float(turned.max()) > 15
    assert float(turned.min()) < -15
    middle = slice(SIDE // 2 - 1, SIDE // 2 + 1)
    centre_before, centre_after = (x[..., middle, middle].mean(dim=(1, 2, 3)) for x in (ramps, moved))
    assert torch.allclose(centre_before, centre_after, atol=1e-5)


def test_a_zoom_changes_scale_alone(ramps: Tensor) -> None:
    right, down = slopes(random_affine(ramps, dice(), zoom=0.2))
    assert torch.allclose(right, 2 * down, atol=1e-5)
    scale = 0.01 / right
    assert float(scale.min()) >= 0.8 - 1e-3
    assert float(scale.max()) <= 1.2 + 1e-3
    assert float(scale.max() - scale.min()) > 0.3


def test_a_mirror_within_a_resampling_turns_the_slope_round(ramps: Tensor) -> None:
    right, down = slopes(random_affine(ramps, dice(), shift=0.01, flip=True))
    assert right.abs().numpy() == pytest.approx(0.01, abs=1e-5)
    assert down.numpy() == pytest.approx(0.005, abs=1e-5)
    assert 16 <= int((right < 0).sum()) <= 48


def test_colours_move_together(noise: Tensor) -> None:
    grey = noise[:, :1].expand(-1, 3, -1, -1).contiguous()
    moved = random_affine(grey, dice(), **ALL)
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(moved[:, 0], moved[:, 2])


def test_no_black_comes_in_at_the_edges() -> None:
    grey = torch.full((16, 3, SIDE, SIDE), 0.5)
    assert torch.allclose(random_affine(grey, dice(), rotation=90, zoom=0.5, shift=0.5, flip=True), grey)


def test_results_are_images_and_the_input_stays(noise: Tensor) -> None:
    before = noise.clone()
    moved = random_affine(noise, dice(), **ALL)
    assert moved.shape == noise.shape
    assert moved.dtype == torch.float32
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    assert torch.equal(noise, before)


def test_each_image_has_its_own_draw(ramps: Tensor) -> None:
    moved = random_affine(ramps, dice(), **ALL)
    assert len({image.numpy().tobytes() for image in moved}) == len(moved)


@pytest.mark.parametrize("settings", [ALL, {"flip": True}])
def test_the_generator_alone_decides(noise: Tensor, settings: dict) -> None:
    torch.manual_seed(1)
    one = random_affine(noise, dice(4), **settings)
    torch.manual_seed(2)
    assert torch.equal(random_affine(noise, dice(4), **settings), one)
    assert not torch.equal(random_affine(noise, dice(5), **settings), one)
