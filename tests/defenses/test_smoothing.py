"""Randomised smoothing as a defense: its training images, its answers, and the loss that attacks climb."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import TOY_CLASSES, Toy

from robustbench_tin import evaluate
from robustbench_tin.attacks import AttackedModel
from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.training.context import Context


def context_of(seed: int) -> Context:
    generator = torch.Generator().manual_seed(seed)
    return Context(generator, torch.device("cpu"), TOY_CLASSES, epochs=1, note=lambda line: None)


class Counting(nn.Module):
    """Says class 1 if the first value is above one half, else class 0, and counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        self.seen.append(images)
        first = images.flatten(1)[:, 0]
        return torch.stack([0.5 - first, first - 0.5, torch.full_like(first, -9.0)], dim=1)


def test_training_sees_gaussian_noise_cut_to_the_box() -> None:
    grey, labels = torch.full((64, 3, 16, 16), 0.5), torch.arange(64)
    noisy, their_labels = parse_defense("smoothing:sigma=0.1").augment(grey, labels, context_of(0))
    assert torch.equal(their_labels, labels)
    assert float((noisy - grey).std()) == pytest.approx(0.1, rel=0.02)
    assert abs(float((noisy - grey).mean())) < 0.002
    white, _ = parse_defense("smoothing").augment(torch.ones(8, 3, 16, 16), labels[:8], context_of(0))
    assert float(white.max()) == 1
    assert 0.4 < float((white == 1).float().mean()) < 0.6


def test_its_answer_is_the_majority_of_noisy_passes() -> None:
    base = Counting()
    model = parse_defense("smoothing:n0=400,sigma=0.2").wrap(base).eval()
    images = torch.full((3, 3, 4, 4), 0.5)
    images[:, 0, 0, 0] = torch.tensor([0.5 - 0.2, 0.5 + 0.1, 0.9])
    torch.manual_seed(0)
    with torch.no_grad():
        shares = model(images).softmax(dim=1)
    assert base.passes == 400
    assert all(float(seen.min()) >= 0 and float(seen.max()) <= 1 for seen in base.seen)
    # Φ(-1), Φ(0.5), Φ(2) of the votes are class 1's.
    assert torch.allclose(shares[:, 1], torch.tensor([0.159, 0.691, 0.977]), atol=0.06)
    assert shares.argmax(dim=1).tolist() == [0, 1, 1]
    # No vote at all still leaves a rank, by probability.
    assert bool((shares[:, 2] < shares[:, :2].amin(dim=1)).all())


def test_a_gradient_is_that_of_the_mean_probability(toy: Toy) -> None:
    model = parse_defense("smoothing:samples=3,sigma=0.1").wrap(toy.model)
    images = toy.images[:4].clone().requires_grad_()
    torch.manual_seed(0)
    logits = model(images)
    torch.manual_seed(0)
    draws = [toy.model((images + 0.1 * torch.randn_like(images)).clamp(0, 1)) for _ in range(3)]
    expected = torch.stack([draw.softmax(dim=1) for draw in draws]).mean(dim=0)
    assert torch.allclose(logits.exp(), expected, atol=1e-6)
    (ours,) = torch.autograd.grad(logits[:, 0].sum(), images, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected[:, 0].log().sum(), images)
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)
    assert float(ours.abs().max()) > 0


def test_it_can_be_attacked_and_the_same_twice(toy: Toy) -> None:
    model = parse_defense("smoothing:sigma=0.1,n0=20").wrap(toy.model)
    frames = [
        evaluate(model, toy.images[:32], toy.labels[:32], "pgd:steps=3", 0.06).records.drop(columns="seconds")
        for _ in range(2)
    ]
    assert frames[0].equals(frames[1])
    assert set(frames[0].status) == {"ok"}
    assert frames[0].top1[0] > 0.9
    assert frames[0].top1[1] < 0.5


def test_a_vote_is_finite_whatever_the_network_is_sure_of(toy: Toy) -> None:
    class Sure(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = toy.model(images) * 1e6
            return logits

    with AttackedModel(parse_defense("smoothing:n0=5,samples=2").wrap(Sure())) as attacked:
        assert bool(torch.isfinite(attacked.logits(toy.images)).all())
        assert bool(torch.isfinite(attacked.gradient(toy.images, toy.labels)).all())


def test_what_wraps_inside_votes_too(toy: Toy) -> None:
    defense = parse_defense("bit-depth:bits=1+smoothing")
    assert defense.certifies
    vote = defense.noise_vote(toy.model)
    assert vote is not None
    assert (vote.sigma, vote.n0, vote.n, vote.alpha) == (0.25, 100, 1000, 0.001)
    binary = toy.images.round()
    with torch.no_grad():
        assert torch.equal(vote.base(toy.images), toy.model(binary))
        assert torch.equal(vote.base(toy.images + 5), toy.model(torch.ones_like(binary)))


def test_others_certify_nothing(toy: Toy) -> None:
    for spec in ("none", "jpeg", "fgsm-at+random-resize"):
        assert not parse_defense(spec).certifies
        assert parse_defense(spec).noise_vote(toy.model) is None


def test_what_wraps_around_it_is_refused() -> None:
    for spec in ("smoothing+jpeg", "smoothing:n=10+augment+blur"):
        with pytest.raises(InvalidSettingError, match="put 'smoothing' last") as caught:
            parse_defense(spec)
        assert "\n" not in str(caught.value)
    assert parse_defense("jpeg+smoothing+fgsm-at").certifies


@pytest.mark.parametrize(
    "setting", ["sigma=0", "sigma=5", "sigma=nan", "n0=0", "n=0", "samples=0", "alpha=0", "alpha=0.5"]
)
def test_impossible_settings_are_refused(setting: str) -> None:
    with pytest.raises(InvalidSettingError, match=setting.partition("=")[0]):
        parse_defense(f"smoothing:{setting}")
