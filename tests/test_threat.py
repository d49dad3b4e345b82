"""The balls, for any image, budget and candidate."""

from __future__ import annotations

import math
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis.extra import numpy as hnp
from torch import Tensor

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import (
    L2_TOLERANCE,
    NORMS,
    Ball,
    L2Ball,
    ThreatModel,
    parse_eps,
    parse_eps_list,
)

SHAPE = (2, 3, 4, 4)
TINIEST = float(np.float32(1e-45))
EVERY_NORM = pytest.mark.parametrize("norm", NORMS)

pixels = st.one_of(
    st.sampled_from([0.0, 1.0, 0.5, TINIEST, 1e-40, 1e-8, float(np.nextafter(np.float32(1), np.float32(0)))]),
    st.floats(0, 1, width=32),
)
images_of_any_kind = st.one_of(
    st.sampled_from([0.0, 1.0, 0.5, TINIEST]).map(lambda value: np.full(SHAPE, value, np.float32)),
    hnp.arrays(np.float32, SHAPE, elements=pixels, fill=pixels),
    st.integers(0, 99).map(lambda seed: np.random.default_rng(seed).random(SHAPE, np.float32)),
)
candidates_of_any_kind = st.one_of(
    hnp.arrays(np.float32, SHAPE, elements=st.floats(width=32, allow_nan=False)),
    hnp.arrays(np.float32, SHAPE, elements=st.floats(-2, 2, width=32)),
    st.tuples(st.integers(0, 99), st.sampled_from([1e-8, 1e-3, 0.1, 3.0])).map(
        lambda draw: np.random.default_rng(draw[0]).normal(0.5, draw[1], SHAPE).astype(np.float32)
    ),
)
budgets = st.one_of(
    st.sampled_from([0.0, 1e-300, TINIEST, 1e-8, 4e-8, 1e-7, 1e-6, 1e-4, 8 / 255, 0.1, 0.5, 1.0, 3.0]),
    st.floats(0, 2),
    st.floats(0, 1e-6),
)


def distances(images: Tensor, moved: Tensor, norm: str) -> Tensor:
    """In float64 and by other words than those of the package."""
    change = (moved.double() - images.double()).reshape(len(images), -1)
    return change.abs().max(dim=1).values if norm == "linf" else (change**2).sum(dim=1).sqrt()


def allowed(norm: str, eps: float) -> float:
    """In linf no budget is above 1."""
    return min(eps, 1.0) if norm == "linf" else eps


def assert_allowed(images: Tensor, moved: Tensor, norm: str, eps: float) -> None:
    assert moved.shape == images.shape
    assert moved.dtype == torch.float32
    assert bool(((moved >= 0) & (moved <= 1)).all())
    assert float(distances(images, moved, norm).max()) <= (
        eps if norm == "linf" else eps * (1 + L2_TOLERANCE)
    )


@EVERY_NORM
@settings(max_examples=300)
@given(images_of_any_kind, candidates_of_any_kind, budgets)
@example(np.full(SHAPE, 0.7, np.float32), np.zeros(SHAPE, np.float32), 4e-8)
@example(np.full(SHAPE, 0.7, np.float32), np.ones(SHAPE, np.float32), 1e-6)
def test_projection(norm: str, image: np.ndarray, candidate: np.ndarray, eps: float) -> None:
    eps = allowed(norm, eps)
    images, candidates = torch.from_numpy(image), torch.from_numpy(candidate)
    ball = ThreatModel(norm, eps).ball(images)
    moved = ball.project(candidates)
    assert_allowed(images, moved, norm, eps)
    assert bool(ball.contains(moved).all())
    assert torch.equal(ball.project(moved), moved), "projecting twice is projecting once"
    assert torch.equal(ball.project(images), images)
    if eps == 0:
        assert torch.equal(moved, images)


@EVERY_NORM
@settings(max_examples=150)
@given(images_of_any_kind, budgets, st.integers(0, 2**31))
def test_random_starts_are_allowed(norm: str, image: np.ndarray, eps: float, seed: int) -> None:
    eps = allowed(norm, eps)
    images = torch.from_numpy(image)
    ball = ThreatModel(norm, eps).ball(images)
    start = ball.random(torch.Generator().manual_seed(seed))
    assert_allowed(images, start, norm, eps)
    assert torch.equal(start, ball.random(torch.Generator().manual_seed(seed)))


@settings(max_examples=200)
@given(images_of_any_kind, candidates_of_any_kind, budgets)
def test_linf_projection_leaves_what_is_inside_and_moves_the_rest_to_the_nearest(
    image: np.ndarray, candidate: np.ndarray, eps: float
) -> None:
    eps = allowed("linf", eps)
    images, candidates = torch.from_numpy(image), torch.from_numpy(candidate)
    moved = ThreatModel("linf", eps).ball(images).project(candidates)
    inside = ((candidates.double() - images.double()).abs() <= eps) & (candidates >= 0) & (candidates <= 1)
    assert torch.equal(moved[inside], candidates[inside])
    # One number further would be outside the ball or the box.
    beyond = torch.nextafter(moved, candidates)
    still_allowed = ((beyond.double() - images.double()).abs() <= eps) & (beyond >= 0) & (beyond <= 1)
    assert not bool((still_allowed & ~inside).any())


@pytest.mark.parametrize("eps", [0, 1e-9, 0.01, 1 / 255, 4 / 255, 8 / 255, 0.5, 1])
def test_bounds_of_8_bit_images_are_those_of_any_others(eps: float) -> None:
    """They are looked up; those of other images are computed. One value off the grid ends the look-up."""
    levels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    images = levels.float().div_(255)
    off_grid = torch.cat([images, torch.full_like(images, 0.3)])
    for far in (torch.full_like(images, -9.0), torch.full_like(images, 9.0)):
        looked_up = ThreatModel("linf", eps).ball(images).project(far)
        worked_out = ThreatModel("linf", eps).ball(off_grid).project(torch.cat([far, far]))
        assert torch.equal(looked_up, worked_out[:1])
        assert_allowed(images, looked_up, "linf", eps)
        channels_last = images.to(memory_format=torch.channels_last)
        assert torch.equal(ThreatModel("linf", eps).ball(channels_last).project(far), looked_up)


@settings(max_examples=200)
@given(images_of_any_kind, candidates_of_any_kind, budgets.filter(lambda eps: eps >= 1e-3))
def test_l2_projection_uses_the_whole_ball(image: np.ndarray, candidate: np.ndarray, eps: float) -> None:
    """As far as the box allows it: a candidate outside ends on the sphere, to float32's resolution."""
    images, candidates = torch.from_numpy(image), torch.from_numpy(candidate)
    moved = ThreatModel("l2", eps).ball(images).project(candidates)
    reach = distances(images, candidates.clamp(0, 1), "l2").clamp(max=eps)
    assert bool((distances(images, moved, "l2") >= reach * (1 - 1e-6) - 1e-6).all())


def test_l2_projection_ends_after_few_rounds_whatever_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding to float32 leads out of a small ball again and again; it may not be followed there."""
    generator = torch.Generator().manual_seed(0)
    images = 0.6 + 0.4 * torch.rand(8, 3, 32, 32, generator=generator)
    candidates = torch.rand(images.shape, generator=generator)
    rounds = 0
    norm = torch.linalg.vector_norm

    def counted(*args, **settings) -> Tensor:
        nonlocal rounds
        rounds += 1
        return norm(*args, **settings)

    monkeypatch.setattr(torch.linalg, "vector_norm", counted)
    for eps in np.geomspace(1e-9, 1, 46):
        ball, rounds = L2Ball(images, float(eps)), 0
        moved = ball.project(candidates)
        assert rounds <= 4
        assert bool(ball.contains(moved).all())


@EVERY_NORM
def test_random_starts_fill_the_ball(norm: str) -> None:
    """Uniform: of a ball in d dimensions the part (1/2)^d lies within half the radius."""
    images = torch.full((20_000, 1, 1, 2), 0.5)
    ball = ThreatModel(norm, 0.2).ball(images)
    reach = ball.distance(ball.random(torch.Generator().manual_seed(0))) / 0.2
    for radius in (0.25, 0.5, 0.75):
        share = float((reach <= radius).double().mean())
        assert share == pytest.approx(radius**2, abs=4 * math.sqrt(0.25 / 20_000))
    assert float(reach.max()) > 0.99


@settings(max_examples=200)
@given(hnp.arrays(np.float32, SHAPE, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
@example(np.full(SHAPE, TINIEST, np.float32))
@example(np.full(SHAPE, 3e38, np.float32))
@example(np.zeros(SHAPE, np.float32))
def test_directions_have_length_one_and_never_descend(gradient: np.ndarray) -> None:
    slopes = torch.from_numpy(gradient)
    some = slopes.flatten(1).abs().amax(dim=1) > 0
    for norm in NORMS:
        direction = ThreatModel(norm, 0.1).ball(torch.full(SHAPE, 0.5)).direction(slopes)
        length = distances(torch.zeros(SHAPE), direction, norm)
        assert torch.allclose(length, some.double(), atol=1e-5)
        assert bool((direction.double() * slopes.double() >= 0).all())


@EVERY_NORM
def test_what_is_not_a_number_is_outside(norm: str) -> None:
    ball = ThreatModel(norm, 0.1).ball(torch.full(SHAPE, 0.5))
    spoilt = torch.full(SHAPE, 0.5)
    spoilt[1, 0, 0, 0] = float("nan")
    assert ball.contains(spoilt).tolist() == [True, False]
    assert ball.contains(ball.project(spoilt)).tolist() == [True, False]


@EVERY_NORM
def test_what_leaves_the_box_or_the_ball_is_outside(norm: str) -> None:
    ball = ThreatModel(norm, 0.1).ball(torch.tensor([0.05, 0.5, 0.5]).view(3, 1, 1, 1))
    assert ball.contains(torch.tensor([-0.01, 0.61, 0.59]).view(3, 1, 1, 1)).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("text", "eps"), [("0.03", 0.03), ("8/255", 8 / 255), ("0", 0.0), ("1e-8", 1e-8), (" 2 ", 2.0)]
)
def test_budgets_are_read_as_people_write_them(text: str, eps: float) -> None:
    assert parse_eps(text) == eps


@pytest.mark.parametrize(
    "number", [np.float32, np.float64, torch.tensor, lambda eps: np.array(eps, np.float32)]
)
@pytest.mark.parametrize("eps", [8 / 255, 1 / 255, 0.03, 0.2, 1.0])
def test_a_budget_in_another_precision_is_the_number_that_was_meant(number: Callable, eps: float) -> None:
    assert parse_eps(number(eps)) == eps


@pytest.mark.parametrize("text", ["", "x", "8/", "/255", "8/0", "-0.1", "nan", "inf", "1/2/3", "1/inf/2"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"^eps got .*; expected") as caught:
        parse_eps(text)
    assert "\n" not in str(caught.value)


def test_lists_of_budgets_keep_their_order() -> None:
    assert parse_eps_list([0.3, 0, "1/10", 0.3]) == (0.3, 0.0, 0.1, 0.3)
    with pytest.raises(InvalidSettingError, match="empty"):
        parse_eps_list([])


def test_unknown_norms_are_refused() -> None:
    with pytest.raises(InvalidSettingError, match="norm got 'l1'; expected linf or l2"):
        ThreatModel("l1", 0.1)


def test_norms_make_their_balls() -> None:
    images = torch.zeros(SHAPE)
    balls: list[Ball] = [ThreatModel(norm, 0.5).ball(images) for norm in NORMS]
    assert [ball.radius for ball in balls] == [0.5, 0.5 * (1 + L2_TOLERANCE)]


@pytest.mark.parametrize("eps", [8, 1.001, 255, 4.0])
def test_an_linf_budget_above_1_is_refused_and_the_meant_one_said(eps: float) -> None:
    told = f"in linf.*for {eps:g} of 255 levels, write {eps:g}/255"
    for call in (lambda: ThreatModel("linf", eps), lambda: parse_eps_list([0.1, eps], "linf")):
        with pytest.raises(InvalidSettingError, match=told):
            call()
    assert ThreatModel("linf", 1).eps == 1
    assert ThreatModel("l2", eps).eps == eps
    assert parse_eps_list([eps], "l2") == (eps,)
