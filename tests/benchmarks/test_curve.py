"""``--curve``: a ladder of eps, its cost, its median, and the faults that trust checks must still see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from toys import Toy

from robustbench_tin import bench, evaluate
from robustbench_tin.attacks.base import Attack, AttackedModel
from robustbench_tin.attacks.pgd import PGD
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.evaluation import Evaluation
from robustbench_tin.benchmarks.measurement.curve import sampled
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.minimum_eps import minimum_eps
from robustbench_tin.benchmarks.statistics.median import Median, median
from robustbench_tin.threat import Ball

LADDER = (0.02, 0.05, 0.1, 0.2)


def measured(toy: Toy, attack: str | Attack, **options) -> Evaluation:
    return evaluate(toy.model, toy.images, toy.labels, attacks=[attack], eps=LADDER, **options)


def rates(found: Evaluation) -> list[float]:
    return [float(rate) for rate in found.records["top1"]]


def passes(found: Evaluation) -> list[int]:
    attacked = found.records[found.records["attack"] != "clean"]
    return [int(each) for each in attacked["forward_passes"] + attacked["backward_passes"]]


@pytest.mark.parametrize(
    "attack", ["fgsm", "pgd:random_start=False", "fast", "pgd:random_start=False,criterion=top1"]
)
def test_no_accuracy_is_above_that_of_independent_measurements(toy: Toy, attack: str) -> None:
    alone, ladder = measured(toy, attack), measured(toy, attack, curve=True)
    assert all(mine <= theirs for mine, theirs in zip(rates(ladder), rates(alone), strict=True))
    assert rates(ladder)[:2] == rates(alone)[:2]  # clean, and the first rung attacks all images
    assert rates(ladder) == sorted(rates(ladder), reverse=True)
    assert sum(passes(ladder)) <= sum(passes(alone))


def test_higher_rungs_cost_little_once_most_images_have_fallen(toy: Toy) -> None:
    first, *others = passes(measured(toy, "pgd", curve=True))
    assert sum(others[1:]) < 0.6 * first  # the sample alone: two rungs of a quarter of the images
    assert passes(measured(toy, "pgd"))[1:] == [first] * 3


def test_a_fixed_budget_that_shares_its_gradients_takes_no_more(toy: Toy) -> None:
    assert passes(measured(toy, "fgsm", curve=True)) == passes(measured(toy, "fgsm"))


def test_a_criterion_of_top_5_carries_the_top_5(toy: Toy) -> None:
    found = measured(toy, "pgd:criterion=top5", curve=True).records
    attacked = found[found["attack"] != "clean"]
    assert attacked["top1"].isna().all()
    assert list(attacked["top5"]) == sorted(attacked["top5"], reverse=True)


def test_the_median_is_that_of_the_results_per_image(toy: Toy) -> None:
    found = measured(toy, "pgd", curve=True)
    clean, *rungs = [measure.top1 for measure in found.measures]
    smallest = np.where(clean, math.inf, 0.0)
    for eps, left in reversed(list(zip(LADDER, rungs, strict=True))):
        smallest[clean & ~left] = eps
    known = median(smallest[clean])
    assert known is not None
    last = found.records.iloc[-1]
    assert (last["median_eps"], last["median_eps_low"], last["median_eps_high"]) == (
        known.value,
        known.low,
        known.high,
    )
    first = found.records.iloc[1]  # at 0.02 fewer than half have fallen
    assert np.isnan(first["median_eps"])
    assert [bool(each) for each in found.records["curve"]] == [False, True, True, True, True]


def test_survivors_are_censored() -> None:
    assert median(np.array([1.0] * 4 + [math.inf] * 8)) == Median(math.inf, 1.0, math.inf)
    assert median(np.array([])) is None
    few = median(np.array([1.0, 2.0, 4.0]))
    assert few == Median(2.0, 0.0, math.inf)


def test_the_interval_of_a_median_covers_it() -> None:
    random = np.random.default_rng(0)
    ladder = np.array([1.0, 2, 3, 4, 6, 8, math.inf])
    shares = np.array([0.1, 0.1, 0.15, 0.1, 0.2, 0.15, 0.2])  # the median is 6
    found = [median(random.choice(ladder, 41, p=shares)) for _ in range(400)]
    assert np.mean([each is not None and each.low <= 6 <= each.high for each in found]) >= 0.95


@dataclass(frozen=True, kw_only=True)
class Fading(PGD):
    """A PGD that finds nothing beyond eps 0.1, though it asks for as many gradients."""

    name: ClassVar[str] = "fading"

    def run(
        self, attacked: AttackedModel, labels: torch.Tensor, ball: Ball, generator: torch.Generator
    ) -> torch.Tensor:
        moved = super().run(attacked, labels, ball, generator)
        return moved if ball.eps < 0.15 else ball.images.clone()


@pytest.mark.parametrize("curve", [False, True])
def test_an_attack_that_fades_with_eps_is_told_on_a_ladder_too(toy: Toy, curve: bool) -> None:
    found = measured(toy, Fading(steps=5), trust=True, curve=curve)
    last = found.measures[-1].record
    assert last.trust is not None
    assert TrustCode.rising in {reason.code for reason in last.trust}
    assert (last.top1 == 0) is curve  # the ladder keeps adversarial images of smaller eps


def test_the_sample_costs_a_quarter_of_a_rung_at_most_or_sixteen_images() -> None:
    assert sampled(10, 4, 0).sum() == 10
    assert sampled(64, 4, 0).sum() == 16
    assert sampled(800, 8, 0).sum() == 25
    assert sampled(50_000, 8, 0).sum() == 100
    assert (sampled(64, 4, 0) == sampled(64, 4, 0)).all()
    assert (sampled(64, 4, 0) != sampled(64, 4, 1)).any()


@pytest.fixture(scope="module")
def curved(small_options, tmp_path_factory: pytest.TempPathFactory) -> Run:
    options = small_options(tmp_path_factory.mktemp("curve") / "run")
    found = bench(**{**options, "curve": True, "trust": True, "worst_case": True})
    assert found is not None
    return found


def test_a_run_keeps_the_smallest_eps_of_each_image(curved: Run) -> None:
    (cell,) = curved.plan.cells()
    for attack in curved.plan.attacks:
        smallest = minimum_eps(curved, cell, attack)
        clean = curved.outcomes(cell, "clean", 0.0)["top1"].to_numpy()
        assert ((smallest == 0) == ~clean).all()
        for eps in curved.plan.attacked_eps:
            left = curved.outcomes(cell, attack, eps)["top1"].to_numpy()
            assert ((smallest > eps) == left).all()


def test_a_run_keeps_the_class_that_an_image_was_taken_for_first(curved: Run) -> None:
    (cell,) = curved.plan.cells()
    before = curved.outcomes(cell, "clean", 0.0)
    for eps in curved.plan.attacked_eps:
        now = curved.outcomes(cell, "pgd:steps=2", eps)
        fallen = ~before["top1"]
        assert (now["predicted"][fallen] == before["predicted"][fallen]).all()
        assert not now["top1"][fallen].any()
        before = now


def test_show_has_a_table_of_medians(curved: Run) -> None:
    *_, table = curved.tables
    assert table.title == "Median of the smallest linf eps at which an image is adversarial"
    assert table.columns[2:] == ("fgsm", "pgd:steps=2")
    assert "Median of the smallest" in (curved.path / "results.md").read_text()


def test_an_evaluation_shows_the_medians(toy: Toy) -> None:
    found = measured(toy, "pgd", curve=True)
    assert "Median of the smallest linf eps" in repr(found)
    assert "Median of the smallest linf eps" in found._repr_html_()
    assert "Median" not in repr(measured(toy, "fgsm"))


def test_a_saved_evaluation_is_a_ladder(toy: Toy, tmp_path: Path) -> None:
    found = measured(toy, "pgd", curve=True)
    run = Run.load(found.save(tmp_path / "run"))
    (cell,) = run.plan.cells()
    assert np.isfinite(minimum_eps(run, cell, "pgd")).all()
    assert run.plan.curve
