"""Adversarial images of eight bits: on the grid, in the ball, and results are measured on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from toys import Toy

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks import AttackedModel
from robustbench_tin.attacks.engine.quantize import to_8bit
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.metrics import in_top
from robustbench_tin.threat import NORMS, Ball, ThreatModel

EVERY_NORM = pytest.mark.parametrize("norm", NORMS)
LEVELS = torch.arange(256, dtype=torch.float32) / 255


def born_8bit(images: Tensor) -> Tensor:
    return (images * 255).round() / 255


def levels_of(images: Tensor) -> Tensor:
    return (images.double() * 255).round()


def on_grid(images: Tensor) -> bool:
    return torch.equal(images, LEVELS[levels_of(images).long()])


@st.composite
def balls(draw: st.DrawFn) -> tuple[Ball, Tensor]:
    """A ball around 8-bit images and candidates inside it, from its centre to its rim, some on the grid."""
    norm = draw(st.sampled_from(NORMS))
    largest = 1.0 if norm == "linf" else 8.0
    eps = draw(st.floats(1e-8, largest) | st.integers(1, 64).map(lambda level: level / 255))
    random = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    side = draw(st.sampled_from([1, 2, 8]))
    clean = torch.randint(0, 256, (3, 3, side, side), generator=random).float() / 255
    ball = ThreatModel(norm, eps).ball(clean)
    change = torch.randn(clean.shape, generator=random) * draw(st.sampled_from([0.1, 1.0, 100.0])) * eps
    if draw(st.booleans()):
        change = (change * 255).round() / 255
    if draw(st.booleans()):
        change = change * (torch.rand(clean.shape, generator=random) < 0.2)
    return ball, ball.project(clean + change)


@given(balls())
def test_what_is_rounded_is_on_the_grid_and_in_the_ball(case: tuple[Ball, Tensor]) -> None:
    ball, candidates = case
    rounded = to_8bit(candidates, ball)
    assert rounded.shape == candidates.shape
    assert rounded.dtype == torch.float32
    assert on_grid(rounded)
    assert bool(ball.contains(rounded).all())


@given(balls())
def test_each_value_goes_to_a_neighbouring_level_the_nearest_where_allowed(case: tuple[Ball, Tensor]) -> None:
    ball, candidates = case
    rounded = to_8bit(candidates, ball)
    exact = candidates.double() * 255
    moved = (levels_of(rounded) - exact).abs()
    assert float(moved.max()) <= 1.001
    nearest = LEVELS[exact.round().long()]
    allowed = ball.contains(nearest)
    assert torch.equal(rounded[allowed], nearest[allowed])


@given(balls())
def test_nothing_is_rounded_twice(case: tuple[Ball, Tensor]) -> None:
    ball, candidates = case
    rounded = to_8bit(candidates, ball)
    assert torch.equal(to_8bit(rounded, ball), rounded)
    assert torch.equal(to_8bit(ball.images, ball), ball.images)


@pytest.mark.parametrize("level", [1, 2, 4, 8, 16, 255])
def test_at_the_rim_of_a_linf_ball_float32_decides(level: int) -> None:
    """A multiple may lie a rounding outside in float32: then the level before it is taken."""
    images = LEVELS.view(1, 1, 16, 16).repeat(2, 1, 1, 1)
    ball = ThreatModel("linf", level / 255).ball(images)
    rounded = to_8bit(ball.project(images + torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)), ball)
    assert bool(ball.contains(rounded).all())
    room = torch.where(torch.tensor([True, False]).view(2, 1, 1, 1), 1 - images, images)
    lost = (room * 255).round().clamp(max=level) - (levels_of(rounded) - levels_of(images)).abs()
    assert set(lost.unique().tolist()) <= {0.0, 1.0}
    rim = LEVELS[(levels_of(rounded) + lost * (rounded - images).sign()).long().clamp(0, 255)]
    too_far = (rim.double() - images.double()).abs() > level / 255
    assert torch.equal(too_far, (lost == 1) & (rim != images))


def test_rounding_in_an_l2_ball_keeps_its_length() -> None:
    """Rounding all values towards the image would lose a quarter of it."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 64, 64), generator=random).float() / 255
    ball = ThreatModel("l2", 0.5).ball(images)
    rounded = to_8bit(ball.project(images + torch.randn(images.shape, generator=random)), ball)
    assert bool((ball.distance(rounded) > 0.49).all())


@pytest.mark.parametrize("norm", NORMS)
def test_images_off_the_grid_are_refused(norm: str) -> None:
    images = torch.full((1, 3, 4, 4), 0.5)
    with pytest.raises(InvalidSettingError, match="not multiples of 1/255; expected 8-bit images") as caught:
        to_8bit(images, ThreatModel(norm, 0.1).ball(images))
    assert "\n" not in str(caught.value)


def test_measuring_images_off_the_grid_fails_and_says_why(toy: Toy) -> None:
    for attack in ("fgsm", "pgd:criterion=top1"):
        frame = evaluate(toy.model, toy.images, toy.labels, attack, 0.03, eight_bit=True).records
        assert "not multiples of 1/255" in frame.status[1]
        assert frame.top1.isna()[1]


def test_what_is_no_number_does_not_hang() -> None:
    for norm in NORMS:
        ball = ThreatModel(norm, 0.1).ball(torch.zeros(1, 3, 2, 2))
        assert not ball.contains(to_8bit(torch.full((1, 3, 2, 2), torch.nan), ball)).any()


@EVERY_NORM
@pytest.mark.parametrize("attack", ["fgsm", "pgd:steps=5", "pgd:criterion=top1,steps=5"])
class TestMeasured:
    eps = {"linf": 0.03, "l2": 0.5}  # noqa: RUF012 - a constant

    def test_the_figure_is_that_of_the_images_as_a_file_gives_them_back(
        self, toy: Toy, tmp_path: Path, attack: str, norm: str
    ) -> None:
        clean = born_8bit(toy.images)
        settings = {"eps": self.eps[norm], "norm": norm, "eight_bit": True, "batch_size": 64}
        frame = evaluate(toy.model, clean, toy.labels, attack, **settings).records
        assert frame.eight_bit.tolist()[1]
        moved = perturb(toy.model, clean, toy.labels, attack, **settings)
        assert bool(ThreatModel(norm, self.eps[norm]).ball(clean).contains(moved).all())
        read = []
        for index, image in enumerate(moved):
            path = tmp_path / f"{index}.png"
            Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(path)
            read.append(torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1))
        back = torch.stack(read).float() / 255
        assert torch.equal(back, moved)
        with AttackedModel(toy.model) as attacked:
            hits = in_top(attacked.logits(back), toy.labels, 1)
        assert float(hits.double().mean()) == frame.top1[1] < frame.top1[0]

    def test_it_is_never_below_the_truth(self, attack: str, norm: str) -> None:
        """A linear classifier's robust accuracy is known; 8-bit images are some of those in the ball.

        Two attacks that miss the truth are not compared: rounding may break an image by luck.
        """
        model, clean, labels, eps = linear_problem(norm)
        truth = float(linear_robust(model, clean, labels, norm, eps).double().mean())
        settings = {"eps": eps, "norm": norm}
        plain = evaluate(model, clean, labels, attack, **settings).records.top1[1]
        rounded = evaluate(model, clean, labels, attack, eight_bit=True, **settings).records.top1[1]
        assert 0.2 < truth < 0.8
        assert truth <= plain <= (truth if attack == "fgsm" else truth + 0.15)
        assert truth <= rounded < truth + 0.15

    def test_what_broke_on_eight_bits_is_broken_without_them_too(
        self, toy: Toy, attack: str, norm: str
    ) -> None:
        """Each is an image of the plain threat model, so no figure of it can be right and higher."""
        clean = born_8bit(toy.images)
        given = (attack, self.eps[norm], norm)
        rounded = perturb(toy.model, clean, toy.labels, *given, eight_bit=True)
        exact = perturb(toy.model, clean, toy.labels, *given)
        assert bool(ThreatModel(norm, self.eps[norm]).ball(clean).contains(rounded).all())
        assert float((rounded - exact).abs().max()) <= 1.001 / 255 or "criterion" in attack


def linear_problem(norm: str) -> tuple[nn.Module, Tensor, Tensor, float]:
    """Two classes, images as far from the boundary as the budget reaches, give or take some noise."""
    random = torch.Generator().manual_seed(6)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, 48, generator=random))
        model[1].bias.copy_(-(model[1].weight @ torch.full((48,), 0.5)))
    weight = (model[1].weight[0] - model[1].weight[1]).detach()
    eps = 8 / 255 if norm == "linf" else 0.3
    away = eps * (weight.sign() if norm == "linf" else weight / weight.norm()).view(1, 3, 4, 4)
    labels = torch.arange(100) % 2
    noise = 0.03 * torch.randn(100, 3, 4, 4, generator=random)
    images = born_8bit(0.5 + away * (1 - 2 * labels).view(-1, 1, 1, 1) + noise)
    assert float((images - 0.5).abs().max()) < 0.5 - eps
    return model, images, labels, eps


def linear_margin(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        logits = model(images).double()
    own = logits.gather(1, labels.view(-1, 1)).squeeze(1)
    return (model[1].weight[0] - model[1].weight[1]).detach().double(), 2 * own - logits.sum(dim=1)


def linear_robust(model: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float) -> Tensor:
    """Whether each image is robust; holds if the budget does not reach the bounds of the pixel box."""
    weight, margin = linear_margin(model, images, labels)
    return margin > eps * (weight.abs().sum() if norm == "linf" else weight.norm())
