"""Certified accuracy: against a linear classifier's closed form, and below the accuracy under attacks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn
from toys import TOY_CLASSES, Toy

from robustbench_tin import bench
from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.measurement.attack import measure_attack
from robustbench_tin.benchmarks.measurement.certified import MODE, certify, measure_certified, radius
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.defenses import parse_defense
from robustbench_tin.defenses.base import NoiseVote
from robustbench_tin.errors import InvalidSettingError

CPU = torch.device("cpu")


def linear(seed: int = 0) -> nn.Module:
    """Two classes, divided by a plane through grey."""
    random = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        weight = torch.randn(48, generator=random)
        model[1].weight.copy_(torch.stack([weight, -weight]) / weight.norm())
        model[1].bias.copy_(-(model[1].weight @ torch.full((48,), 0.5)))
    return model


@pytest.fixture
def plane() -> tuple[NoiseVote, ImageBatches, np.ndarray]:
    """A linear classifier's vote, 200 images of its own labels, and their distances from the plane."""
    model = linear()
    images = torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(images)
    distances = ((logits[:, 0] - logits[:, 1]).abs() / 2).double().numpy()
    vote = NoiseVote(model, sigma=0.25, n0=50, n=1000, alpha=0.001)
    return vote, ImageBatches(images, logits.argmax(dim=1), 64, CPU), distances


def test_of_a_linear_classifier_it_is_the_distance_to_the_plane(plane: tuple) -> None:
    """Under noise of deviation sigma, the answer wins a part Φ(distance / sigma) of all votes."""
    vote, batches, distances = plane
    found = certify(vote, batches)
    proved = ~np.isnan(found.radii)
    # Each bound is wrong with probability 0.001.
    assert (found.radii[proved] > distances[proved]).mean() < 0.02
    # If the sample limits the bound, and not the number of votes, the bound is near.
    decided = distances < 0.4
    votes = 1000 * norm.cdf(distances / 0.25)
    expected = radius(votes.astype(np.int64), 1000, 0.25, 0.001)
    close = np.abs(found.radii - expected)[decided & (distances > 0.1)]
    assert np.median(close) < 0.01
    assert close.max() < 0.1
    assert (~proved)[distances < 0.01].all()
    assert proved[distances > 0.1].all()
    assert found.radii[proved].max() == pytest.approx(0.25 * norm.ppf(0.001 ** (1 / 1000)))


def test_more_votes_come_nearer_and_a_smaller_risk_costs_radius(plane: tuple) -> None:
    vote, batches, _ = plane
    batches = batches.first(40)

    def mean(**settings: float) -> float:
        return float(np.nan_to_num(certify(replace(vote, **settings), batches).radii).mean())

    assert mean(n=100) < mean(n=1000) < mean(n=4000)
    assert mean(alpha=1e-6) < mean(alpha=1e-3) < mean(alpha=0.1)


def test_what_is_wrong_or_unsure_is_not_certified(plane: tuple) -> None:
    vote, batches, _ = plane
    wrong = ImageBatches(batches.images, 1 - batches.labels, 64, CPU)
    far = measure_clean(vote.base, batches)[1].diff(dim=1).abs().squeeze(1) > 1
    found = certify(vote, wrong)
    assert np.isnan(found.radii[far.numpy()]).all()
    on_plane = ImageBatches(torch.full((50, 3, 4, 4), 0.5), torch.zeros(50, dtype=torch.int64), 50, CPU)
    unsure = certify(vote, on_plane)
    assert np.isnan(unsure.radii).mean() > 0.95
    (outcomes,) = measure_certified(vote, on_plane, [1e-6])
    assert outcomes.top1.mean() < 0.05


def test_accuracy_falls_with_the_radius(plane: tuple) -> None:
    vote, batches, _ = plane
    radii = [0.01, 0.1, 0.2, 0.4, 0.9, 5.0]
    measures = measure_certified(vote, batches, radii)
    kept = [float(outcomes.top1.mean()) for outcomes in measures]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 0.8
    assert kept[-1] == 0
    for small, large in pairwise(measures):
        assert not (large.top1 & ~small.top1).any()
    assert {outcomes.mode for outcomes in measures} == {MODE}
    assert all(outcomes.top5 is None and str(outcomes.status) == "ok" for outcomes in measures)


def test_passes_are_counted_and_wrong_answers_cost_no_second_vote(plane: tuple) -> None:
    vote, batches, _ = plane
    vote = replace(vote, n0=10, n=30)
    right = int((certify(vote, batches).answers == batches.labels.numpy()).sum())
    (outcomes,) = measure_certified(vote, batches, [0.1])
    assert 0 < right < 200
    assert (outcomes.forward_passes, outcomes.backward_passes) == (200 * 10 + right * 30, 0)
    shared = measure_certified(vote, batches, [0.1, 0.2])
    assert [each.forward_passes for each in shared] == [outcomes.forward_passes // 2] * 2


def test_the_seed_alone_decides(plane: tuple) -> None:
    vote, batches, _ = plane
    vote, batches = replace(vote, n=50), batches.first(100)
    before = torch.random.get_rng_state()
    one = certify(vote, batches, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    assert np.array_equal(certify(vote, batches, seed=3).radii, one.radii, equal_nan=True)
    assert not np.array_equal(certify(vote, batches, seed=4).radii, one.radii, equal_nan=True)


@pytest.mark.parametrize(("won", "votes"), [(0, 10), (55, 100), (80, 100), (100, 100), (990, 1000), (1, 1)])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_bound_is_that_of_clopper_and_pearson(won: int, votes: int, alpha: float) -> None:
    test = binomtest(won, votes, alternative="greater")
    low = test.proportion_ci(1 - alpha, method="exact").low
    expected = 0.5 * norm.ppf(low) if low > 0.5 else np.nan
    assert radius(np.array([won]), votes, 0.5, alpha)[0] == pytest.approx(expected, nan_ok=True)


def test_no_attack_leaves_less_than_is_certified(toy: Toy) -> None:
    """Exceptions: images with a wrong certificate, or with an unlikely vote of 100."""
    defense = parse_defense("smoothing:sigma=0.15,n0=100,n=300")
    batches = ImageBatches(toy.images[:32], toy.labels[:32], 32, CPU)
    radii = [0.1, 0.25, 0.4]
    smoothed, vote = defense.wrap(toy.model), defense.noise_vote(toy.model)
    certified = [outcomes.top1 for outcomes in measure_certified(vote, batches, radii)]
    attacked = measure_attack(smoothed, batches, parse_attack("pgd:steps=3"), radii, AttackProtocol("l2"))
    for proved, outcomes in zip(certified, attacked, strict=True):
        assert str(outcomes.status) == "ok"
        assert (proved & ~outcomes.top1).sum() <= 1
        assert proved.mean() <= outcomes.top1.mean() + 1 / 32
    assert certified[0].mean() > 0.5
    assert attacked[-1].top1.mean() < 1


def test_a_classifier_that_fails_is_a_failed_measure(plane: tuple) -> None:
    class Failing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :2] * float("nan")

    vote, batches, _ = plane
    for outcomes in measure_certified(replace(vote, base=Failing()), batches, [0.1, 0.2]):
        assert str(outcomes.status) == "failed: the model's logits are not finite"
        assert outcomes.top1 is None


@pytest.mark.parametrize("setting", [{"sigma": 0.0}, {"n0": 0}, {"n": 0}, {"alpha": 0.0}, {"alpha": 1.0}])
def test_impossible_votes_are_refused(plane: tuple, setting: dict) -> None:
    vote, batches, _ = plane
    with pytest.raises(InvalidSettingError, match="certify got") as caught:
        certify(replace(vote, **setting), batches)
    assert "\n" not in str(caught.value)


class TestRun:
    @pytest.fixture
    def options(self, small: dict) -> dict:
        return {
            **small,
            "defenses": "none,blur+smoothing:n0=4,n=20,samples=2,sigma=0.1",
            "attacks": "fgsm",
            "eps": "0,0.05,0.1",
            "norm": "l2",
        }

    def test_it_has_a_measure_at_each_radius(self, options: dict, tmp_path: Path) -> None:
        run = bench(**options)
        assert run.complete
        records = run.records
        certified = records[records["attack"] == "certified"]
        assert set(certified["defense"]) == {"blur+smoothing:n=20,n0=4,samples=2,sigma=0.1"}
        assert certified["eps"].tolist() == [0.05, 0.1]
        assert set(certified["norm"]) == {"l2"}
        assert set(certified["mode"]) == {MODE}
        assert certified["top5"].isna().all()
        assert certified["top1"].is_monotonic_decreasing
        assert certified["above_chance"].notna().all()
        cell = list(run.plan.cells())[1]
        assert run.outcomes(cell, "certified", 0.1)["top1"].mean() == certified["top1"].iloc[1]
        (table,) = (table for table in run.tables if "certified" in table.title)
        assert len(table.rows) == 1
        assert table.columns[2:] == ("top-1 clean", "top-1 eps 0.05", "top-1 eps 0.1")
        again = bench(**{**options, "out": tmp_path / "again"})
        assert again.records["top1"].equals(records["top1"])

    def test_it_goes_on_where_it_stopped(self, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
        class Stop(BaseException):
            pass

        def stop(*given: object, **settings: object) -> None:
            raise Stop

        with monkeypatch.context() as patch:
            patch.setattr("robustbench_tin.benchmarks.cells.measure_cell.measure_certified", stop)
            with pytest.raises(Stop):
                bench(**options)
        assert bench(**options).complete

    def test_runs_under_linf_have_none(self, options: dict) -> None:
        run = bench(**{**options, "norm": "linf", "eps": "0,0.01"})
        assert run.complete
        assert set(run.records["attack"]) == {"clean", "fgsm"}


def test_a_constant_classifier_is_certified_as_far_as_the_votes_reach() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.eye(TOY_CLASSES)[3].expand(len(images), -1)

    images = torch.rand(5, 3, 4, 4)
    vote = NoiseVote(Constant(), sigma=0.5, n0=2, n=20, alpha=0.01)
    found = certify(vote, ImageBatches(images, torch.tensor([3, 3, 0, 1, 3]), 2, CPU))
    assert found.answers.tolist() == [3] * 5
    assert np.isnan(found.radii).tolist() == [False, False, True, True, False]
    assert found.radii[0] == pytest.approx(0.5 * norm.ppf(0.01 ** (1 / 20)))
    assert found.right(float(found.radii[0]) - 1e-3)[0]
    # A proof is of shorter changes alone.
    assert not found.right(float(found.radii[0]))[0]
