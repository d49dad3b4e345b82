"""Differences, passages and jumps of models whose answers are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faults.parts import After, Before, with_gradient
from torch import Tensor, nn
from toys import Toy, draw_toy_images

from robustbench_tin.benchmarks.trust.answer_stability import apart, typical_margin
from robustbench_tin.benchmarks.trust.frozen import ProbedModel
from robustbench_tin.benchmarks.trust.slopes import KINDS, NEAR, climbs, differences, jumps, passages


@pytest.fixture
def images() -> Tensor:
    return draw_toy_images(24, seed=3)[0]


def linear() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))


def floor(images: Tensor) -> Tensor:
    return torch.zeros(len(images))


def test_a_linear_model_keeps_what_its_gradient_promises(images: Tensor) -> None:
    subject = ProbedModel(linear())
    with subject.attacked:
        near = differences(subject, images, 0.01, floor(images), seed=0)
        far = climbs(subject, images, 0.2, floor(images))
        passage = passages(subject, images, floor(images))
    assert near.measured.shape == (24, len(KINDS))
    assert near.errors().max() < 1e-3
    assert near.errors_by_direction().max() < 1e-3
    assert far.kept() == pytest.approx(1, abs=1e-3)
    assert passage.errors_by_direction()[0] < 1e-3
    assert not near.doubtful


def test_a_gradient_of_the_wrong_sign_keeps_nothing(images: Tensor) -> None:
    subject = ProbedModel(Before(linear(), lambda images: with_gradient(images, Tensor.neg)))
    with subject.attacked:
        near = differences(subject, images, NEAR, floor(images), seed=0)
        passage = passages(subject, images, floor(images))
    assert near.errors().min() > 0.99
    assert near.kept() == pytest.approx(-1, abs=0.01)
    assert passage.errors_by_direction()[0] > 0.99
    assert near.doubtful


@pytest.mark.parametrize("channel", range(3))
def test_a_cut_channel_shows_along_directions_of_one_channel(toy: Toy, images: Tensor, channel: int) -> None:
    mask = torch.ones(1, 3, 1, 1)
    mask[:, channel] = 0

    def without_channel(images: Tensor) -> Tensor:
        return images * mask + (images * (1 - mask)).detach()

    subject = ProbedModel(Before(toy.model, without_channel))
    with subject.attacked:
        near = differences(subject, images, NEAR, floor(images), seed=0)
    assert near.errors_by_direction()[KINDS.index("one-channel")] > 0.95
    # The remaining part of the gradient is right: along its own sign nothing shows.
    assert near.errors_by_direction()[KINDS.index("steepest")] < 0.05


def test_answers_in_steps_show_between_images_only(toy: Toy, images: Tensor) -> None:
    slope = linear()

    class Steps(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            one_hot = nn.functional.one_hot(toy.model(images).argmax(dim=1), 10)
            return 100 * one_hot + slope(images).repeat(1, 3)[:, :10]

    subject = ProbedModel(Steps())
    with subject.attacked:
        near = differences(subject, images, NEAR, torch.full((24,), 2e-5), seed=0)
        passage = passages(subject, images, floor(images))
    assert near.errors_by_direction().max() < 0.05
    assert passage.errors_by_direction()[0] > 0.9


@pytest.mark.parametrize("waves", [1.0, 4.0, 12.0])
def test_a_rough_model_keeps_its_promises_in_smaller_pieces(images: Tensor, waves: float) -> None:
    slope = linear()
    subject = ProbedModel(After(slope, lambda logits: logits + 0.3 * (waves * 10 * logits).sin()))
    with subject.attacked:
        passage = passages(subject, images, floor(images))
    assert passage.errors_by_direction()[0] < 0.2


def test_chance_does_not_make_a_rough_model_one_of_steps(images: Tensor) -> None:
    """With few pieces, the error of a rough model may grow before it shrinks."""
    for seed in range(20):
        torch.manual_seed(seed)
        slope = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
        subject = ProbedModel(After(slope, lambda logits: logits + (60 * logits).sin()))
        with subject.attacked:
            passage = passages(subject, images, floor(images))
        assert passage.errors_by_direction()[0] < 0.25


def test_rounding_is_no_error(images: Tensor) -> None:
    subject = ProbedModel(After(linear(), lambda logits: logits + 1e-4 * (1e6 * logits.detach()).sin()))
    with subject.attacked:
        blind = differences(subject, images, NEAR, torch.full((24,), 1.0), seed=0)
        noisy = differences(subject, images, NEAR, torch.full((24,), 2e-4), seed=0)
    assert not blind.usable.any()
    assert len(blind.errors()) == 0
    assert np.median(noisy.errors()) < 0.5


def test_jumps_are_those_of_the_answers_not_of_the_slope(images: Tensor) -> None:
    def seeded(images: Tensor) -> Tensor:
        moved = images.clone()
        for row in range(len(images)):
            seed = int(images[row].detach().double().sum() * 1e6)
            moved[row] += 0.1 * torch.randn(images[row].shape, generator=torch.Generator().manual_seed(seed))
        return moved

    for model, jumping in ((linear(), False), (Before(linear(), seeded), True)):
        subject = ProbedModel(model)
        with subject.attacked:
            logits = subject.logits(images)
            moves = jumps(subject, images, logits)
        assert bool((moves > 0.05 * typical_margin(logits)).any()) == jumping


def test_a_frozen_model_draws_the_same_each_time_and_says_that_it_draws(toy: Toy, images: Tensor) -> None:
    noisy = ProbedModel(Before(toy.model, lambda images: images + 0.1 * torch.randn_like(images)))
    plain = ProbedModel(toy.model)
    with noisy.attacked:
        first, again = noisy.logits(images), noisy.logits(images)
        with noisy.drawing(1):
            other = noisy.logits(images)
        # The gradient is that of the same draw.
        near = differences(noisy, images, NEAR, floor(images), seed=0)
    with plain.attacked:
        plain.logits(images)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (noisy.draws, plain.draws) == (True, False)
    assert near.errors().max() < 0.2


def test_no_masked_class_hides_that_answers_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 10, generator=generator)
    others = logits + 0.2 * torch.randn(32, 10, generator=generator)
    masked, others_masked = logits.clone(), others.clone()
    masked[:, 4] = others_masked[:, 4] = -1e4
    for one, other in ((logits, others), (masked, others_masked)):
        assert apart(other, one, 1e-3).all()
        assert not apart(one + 1e-7, one, 1e-3).any()
    # An offset that all classes share decides nothing.
    assert not apart(logits + 3, logits, 1e-3).any()
