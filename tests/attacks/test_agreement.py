"""The part of the difference between a variant and its model that rounding explains, image by image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toys import Toy

from robustbench_tin.attacks.acceleration.agreement import (
    FLOAT32_LIMIT,
    SampleOutput,
    distance,
    is_wrong,
    limit_of,
    sample_output,
)
from robustbench_tin.attacks.acceleration.variants import ModelVariant
from robustbench_tin.strict_float32 import exact_float32

NOISE = {"float32": 1e-6, "bfloat16": 5e-3, "float16": 5e-4}
PRECISIONS = pytest.mark.parametrize("precision", NOISE)


def answers(count: int = 40) -> SampleOutput:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, 10, generator=generator)
    return SampleOutput("float32", logits, torch.randn(8, 3, 4, 4, generator=generator), 0.1)


def rounded(ours: SampleOutput, precision: str, times: float = 1.0) -> SampleOutput:
    noise = torch.randn(ours.logits.shape, generator=torch.Generator().manual_seed(1))
    return replace(ours, precision=precision, logits=ours.logits + times * 3 * NOISE[precision] * noise)


def wrong_on(theirs: SampleOutput, rows: slice | list[int], by: float = 0.3) -> SampleOutput:
    """Some answers differ by this part of the logits' spread."""
    logits = theirs.logits.clone()
    logits[rows] += by * logits[rows].roll(1, dims=1)
    return replace(theirs, logits=logits)


@PRECISIONS
def test_rounding_is_no_disagreement(precision: str) -> None:
    ours = answers()
    limit = limit_of(rounded(ours, precision), ours)
    assert limit is not None
    assert float(distance(rounded(ours, precision).logits, ours.logits).max()) < limit / 2


@PRECISIONS
@pytest.mark.parametrize("part", [0.1, 0.5])
def test_a_form_that_is_wrong_on_some_images_does_not_agree(precision: str, part: float) -> None:
    ours = answers()
    assert limit_of(wrong_on(rounded(ours, precision), slice(int(part * 40))), ours) is None


def test_in_float32_a_single_wrong_image_is_enough() -> None:
    ours = answers(200)
    assert limit_of(wrong_on(rounded(ours, "float32"), [170], by=0.01), ours) is None
    # In a lower precision one may be an accident, also of the largest logit.
    assert limit_of(wrong_on(rounded(ours, "bfloat16"), [170]), ours) is not None


def test_a_noisier_form_is_granted_more_and_no_more_than_searching_bears() -> None:
    ours = answers()
    quiet, noisy = (limit_of(rounded(ours, "bfloat16", times), ours) for times in (1, 4))
    assert quiet is not None
    assert noisy is not None
    assert quiet < noisy
    assert limit_of(rounded(ours, "bfloat16", 200), ours) is None


def test_gradients_are_compared_as_a_whole() -> None:
    ours = answers()
    one = ours.gradient.clone()
    one[0] *= -1
    assert limit_of(replace(ours, gradient=one), ours) == FLOAT32_LIMIT
    assert limit_of(replace(ours, gradient=-ours.gradient), ours) is None
    # Images without a gradient are alike.
    none = torch.zeros_like(ours.gradient)
    assert limit_of(replace(ours, gradient=none), replace(ours, gradient=none)) == FLOAT32_LIMIT
    assert limit_of(replace(ours, gradient=none), ours) is None


@pytest.mark.parametrize("spoil", [torch.nan, torch.inf])
def test_a_form_without_numbers_does_not_agree(spoil: float) -> None:
    ours = answers()
    logits = ours.logits.clone()
    logits[3, 1] = spoil
    assert limit_of(replace(ours, logits=logits), ours) is None
    assert limit_of(None, ours) is limit_of(ours, None) is None
    assert float(distance(logits, ours.logits)[3]) == torch.inf


def test_distances_are_in_units_of_what_classes_differ_by() -> None:
    ours = torch.tensor([[4.0, -4.0], [4.0, -4.0], [0.1, -0.1]])
    theirs = ours + torch.tensor([[1.0, 1.0], [2.0, -2.0], [0.0, 0.0]])
    # The spread of the last is that of all logits, halved: (2 * 2 * 16 / 6) ** 0.5 / 2, and a little.
    assert distance(theirs, ours).tolist() == pytest.approx([0.25, 0.5, 0.0])
    assert float(distance(ours + 1, ours)[2]) == pytest.approx(1 / 1.633, rel=1e-2)


def test_beside_large_logits_that_are_nearly_the_same_rounding_counts() -> None:
    ours = 1e4 + torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    assert float(distance(ours.bfloat16().float(), ours).min()) > FLOAT32_LIMIT
    assert float(distance(ours + 1e-3, ours).max()) < FLOAT32_LIMIT


def test_how_many_may_lie_beyond_the_limit() -> None:
    assert [is_wrong("float32", apart, 1_000) for apart in (0, 1)] == [False, True]
    assert [is_wrong("bfloat16", apart, 20) for apart in (1, 2)] == [False, True]
    assert [is_wrong("bfloat16", apart, 1_000) for apart in (30, 31)] == [False, True]


def test_a_probe_asks_all_images_and_takes_the_first_gradients(toy: Toy) -> None:
    asked: list[int] = []

    class Counting(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            asked.append(len(images))
            logits: Tensor = toy.model(images)
            return logits

    with exact_float32():
        found = sample_output(ModelVariant(Counting()), toy.images, 8)
        whole = sample_output(ModelVariant(toy.model), toy.images[:8], 8)
    assert found is not None
    assert whole is not None
    assert asked == [8, 56]
    assert torch.allclose(found.logits, toy.model(toy.images), atol=1e-5)
    assert torch.equal(found.gradient, whole.gradient)
    assert len(found.gradient) == 8
