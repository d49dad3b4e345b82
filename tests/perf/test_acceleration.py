"""The stand that rewrites of a model are timed on: each one is applied, and changes no answer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[2]))  # perf is no part of the package

from perf.acceleration import (
    BFLOAT16,
    CHANNELS_LAST,
    FORM,
    LAYERS,
    PASSES,
    REWRITES,
    TINY_MAPS,
    Ratio,
    Rewrites,
    kinds,
    made,
    seconds,
    timed,
)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A strided stem with a norm, and at last a map of 2 x 2 pixels under a kernel of 3 x 3."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, stride=4, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )
        network(torch.rand(8, 3, 16, 16))  # statistics of its own
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "rewrites",
    [*[Rewrites({each}) for each in REWRITES], FORM, FORM | {BFLOAT16}],
    ids=sorted,
)
def test_a_rewrite_is_applied_and_changes_no_answer(
    model: nn.Module, images: Tensor, rewrites: Rewrites
) -> None:
    plain, variant = made(model, images, Rewrites()), made(model, images, rewrites)
    with torch.no_grad():
        expected, answers = model(images), variant.logits(images).float()
    tolerance = 0.05 if BFLOAT16 in rewrites else 1e-5
    torch.testing.assert_close(answers, expected, rtol=tolerance, atol=tolerance)
    assert (kinds(plain) != kinds(variant)) == bool(rewrites & set(LAYERS))
    assert variant.label.channels_last == (CHANNELS_LAST in rewrites)
    assert any(each.dtype == torch.bfloat16 for each in variant.module.parameters()) == (BFLOAT16 in rewrites)


@pytest.mark.parametrize("passes", PASSES)
def test_what_changes_is_timed_and_what_does_not_is_left_out(
    model: nn.Module, images: Tensor, passes: str
) -> None:
    variant = made(model, images, FORM)
    assert seconds(variant, images, passes) > 0
    ratio = timed(model, images, FORM - {TINY_MAPS}, TINY_MAPS, passes, rounds=3)
    assert ratio is not None
    assert 0 < ratio.low <= ratio.median <= ratio.high
    bare = nn.Sequential(nn.Flatten(), nn.Linear(768, 10)).eval().requires_grad_(False)
    for rewrite in LAYERS:
        assert timed(bare, images, Rewrites(), rewrite, passes, rounds=3) is None


def test_a_ratio_is_the_median_and_the_quartiles() -> None:
    assert Ratio.of([1.0, 0.5, 0.7, 0.9, 0.8]) == Ratio(0.8, 0.7, 0.9)
    assert str(Ratio.of([1.0, 0.5, 0.7, 0.9, 0.8])) == "0.80 (0.70 to 0.90)"
