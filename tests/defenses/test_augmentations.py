"""The effect of each named augmentation on labels and on images that make it visible."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as operations

from robustbench_tin.data.augmentation import draw_beta
from robustbench_tin.defenses import parse_defense, randaugment
from robustbench_tin.training.context import Context

CLASSES = 4


def context_at(step: int = 0, seed: int = 0) -> Context:
    generator = torch.Generator().manual_seed(seed)
    return Context(
        generator,
        torch.device("cpu"),
        CLASSES,
        epochs=1,
        note=lambda line: None,
        steps_per_epoch=9,
        step=step,
    )


def augmented(spec: str, images: Tensor, labels: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
    return parse_defense(spec).augment(images, labels, context_at(step))


@pytest.fixture
def levels() -> tuple[Tensor, Tensor]:
    """Eight images of one grey each, 0/8 to 7/8, and labels."""
    greys = torch.arange(8) / 8
    return greys.view(8, 1, 1, 1).expand(8, 3, 16, 16).contiguous(), torch.arange(8) % CLASSES


def one_hot(labels: Tensor) -> Tensor:
    return functional.one_hot(labels, CLASSES).float()


def test_mixup_blends_images_and_labels_by_the_same_share(levels: tuple[Tensor, Tensor]) -> None:
    images, labels = levels
    shares = []
    for step in range(40):
        mixed, soft = augmented("mixup:alpha=1", images, labels, step)
        share = float(soft[1, labels[1]])
        assert torch.allclose(mixed, share * images + (1 - share) * images.roll(1, 0), atol=1e-6)
        assert torch.allclose(
            soft, share * one_hot(labels) + (1 - share) * one_hot(labels.roll(1)), atol=1e-6
        )
        shares.append(share)
    assert min(shares) < 0.2 < 0.8 < max(shares)


def test_cutmix_labels_by_the_area_that_each_covers(levels: tuple[Tensor, Tensor]) -> None:
    images, labels = levels
    covered = []
    for step in range(40):
        mixed, soft = augmented("cutmix", images, labels, step)
        foreign = (mixed != images).all(dim=1)
        assert torch.equal(mixed[:, 0][foreign], images.roll(1, 0)[:, 0][foreign])
        share = foreign.float().mean(dim=(1, 2))
        assert bool((share == share[0]).all())
        expected = (1 - share[0]) * one_hot(labels) + share[0] * one_hot(labels.roll(1))
        assert torch.allclose(soft, expected, atol=1e-6)
        covered.append(float(share[0]))
        rows, columns = foreign[1].any(dim=1).sum(), foreign[1].any(dim=0).sum()
        assert rows * columns == foreign[1].sum(), "one rectangle"
    assert min(covered) < 0.1 < 0.5 < max(covered)


def test_cutmix_leaves_some_batches_alone_when_told_to(levels: tuple[Tensor, Tensor]) -> None:
    images, labels = levels
    left = sum(augmented("cutmix:probability=0.5", images, labels, step)[1].ndim == 1 for step in range(60))
    assert 15 <= left <= 45


def test_mixing_twice_mixes_the_mixed_labels(levels: tuple[Tensor, Tensor]) -> None:
    images, labels = levels
    _, once = augmented("mixup:alpha=1", images, labels)
    _, twice = augmented("mixup:alpha=1+cutmix", images, labels)
    assert not torch.equal(once, twice)
    assert torch.allclose(twice.sum(dim=1), torch.ones(8))


def test_the_loss_takes_soft_labels_as_the_mean_over_classes_of_hard_ones() -> None:
    logits = torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(0))
    soft = torch.rand(8, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    loss = parse_defense("mixup").loss(torch.nn.Identity(), logits, soft, context_at())
    assert float(loss) == pytest.approx(
        float(-(soft * logits.log_softmax(dim=1)).sum(dim=1).mean()), rel=1e-5
    )


def test_beta_draws_have_the_distribution_s_mean_and_spread() -> None:
    dice = torch.Generator().manual_seed(0)
    draws = np.array([draw_beta(0.2, dice) for _ in range(2000)])
    assert draws.mean() == pytest.approx(0.5, abs=0.04)
    assert draws.var() == pytest.approx(1 / (4 * 1.4), abs=0.02)


def test_random_erasing_replaces_one_rectangle_of_some_images() -> None:
    images = torch.full((400, 3, 16, 16), 2.0)  # no noise is 2
    erased, labels = augmented("random-erasing", images, torch.arange(400) % CLASSES)
    gone = (erased != images).all(dim=1)
    area = gone.float().mean(dim=(1, 2))
    assert 150 <= int((area > 0).sum()) <= 250
    assert float(area.max()) <= 0.45
    rows, columns = gone.any(dim=2).sum(dim=1), gone.any(dim=1).sum(dim=1)
    assert torch.equal(rows * columns, gone.sum(dim=(1, 2)))
    assert len({tuple(row) for row in gone.flatten(1).int().tolist()}) > 100, "each image draws for itself"
    assert float(erased[gone.unsqueeze(1).expand_as(erased)].max()) < 1
    assert labels.dtype == torch.int64


def test_each_operation_is_torchvision_s_for_each_image_alone() -> None:
    images = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    for operation in randaugment._OPERATIONS:
        together = operation(images, 0.5)
        alone = torch.cat([operation(image[None], 0.5) for image in images])
        assert torch.allclose(together, alone, atol=1e-6)
    brighter = randaugment._SIGNED[5](images, 0.5)
    assert torch.allclose(brighter, operations.adjust_brightness(images, 1.45))
    sheared = randaugment._SIGNED[0](images, 1.0)
    tilt = operations.affine(
        images,
        0,
        [0, 0],
        1,
        [math.degrees(math.atan(0.3)), 0],
        interpolation=operations.InterpolationMode.BILINEAR,
    )
    assert torch.allclose(sheared, tilt, atol=1e-4)


def test_randaugment_draws_for_each_image_and_step() -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(40, dtype=torch.int64)
    first, _ = augmented("randaugment", image.expand(40, -1, -1, -1), labels)
    assert len({tuple(row) for row in (first * 1000).round().int().flatten(1).tolist()}) > 20
    again, _ = augmented("randaugment", image.expand(40, -1, -1, -1), labels)
    other, _ = augmented("randaugment", image.expand(40, -1, -1, -1), labels, step=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_strength_little_is_left_to_change() -> None:
    images = torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    moved, _ = augmented("randaugment:magnitude=0,ops=1", images, torch.zeros(60, dtype=torch.int64))
    same = ((moved - images).abs().amax(dim=(1, 2, 3)) < 1 / 255).sum()
    # Autocontrast and equalize have no strength.
    assert 40 <= int(same) < 60
