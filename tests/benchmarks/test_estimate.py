"""The time said before a run starts: passes are counted, and a pass of each network is timed."""

from __future__ import annotations

import pytest
from torch import nn

from robustbench_tin.attacks.fgsm import FGSM
from robustbench_tin.benchmarks.cells import pass_times, time_estimate
from robustbench_tin.benchmarks.cells.pass_times import PassTime, PassTimes, StepTime
from robustbench_tin.benchmarks.cells.time_estimate import estimate
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.reporting.estimate_lines import estimate_lines
from robustbench_tin.runtime import Runtime

MODEL = "timm:test_resnet"
FASTER = {"float32": 1.0, "bfloat16": 4.0}


def planned(precision: str | None) -> Plan:
    return Plan(
        data="demo",
        data_fingerprint="0",
        classes=3,
        train_images=400,
        eval_images=40,
        models=(MODEL,),
        defenses=("none",),
        seeds=(0,),
        attacks=("fgsm",),
        eps=(0.0, 0.01),
        norm="linf",
        search="auto",
        eot=1,
        oblivious=False,
        eight_bit=False,
        worst_case=False,
        epochs=(2,),
        batch_size=40,
        lr=None,
        image_size=None,
        pretrained=False,
        weights=None,
        device="cpu",
        precision=precision,
        plugins=(),
    )


@pytest.fixture(autouse=True)
def _times(monkeypatch: pytest.MonkeyPatch) -> None:
    def passes(skeleton: nn.Module, size: int, runtime: Runtime, parts: list[str]) -> PassTimes:
        steps = {
            "all": StepTime(PassTime(0.3, 0.04 / FASTER[runtime.precision]), 1_000_000),
            "head": StepTime(PassTime(0.1, 0.01), 1000),
        }
        return PassTimes(PassTime(0.5, 0.01), steps)

    monkeypatch.setattr(time_estimate, "time_passes", passes)


def test_steps_and_gradients_are_counted() -> None:
    found = estimate(planned("float32"), 16)
    # 2 epochs of 400 images in 20 steps, each with an update of a million weights
    assert found.training(MODEL, "none") == pytest.approx(800 * 0.04 + 20 * (0.3 + 1e6 * 1e-9))
    # one gradient and one forward pass for 40 images in batches of 50
    assert found.attack(MODEL, FGSM()) == pytest.approx(40 * 1.4 * (0.01 + 0.5 / 50))
    assert found.total(done=frozenset(cell.slug for cell in found.plan.cells())) == 0
    clean = estimate(planned("float32").model_copy(update={"eps": (0.0,)}), 16)
    assert clean.attack(MODEL, FGSM()) == 0


def test_training_is_timed_in_its_precision_and_attacks_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, half = (estimate(planned(precision), 16) for precision in FASTER)
    saved = 800 * 0.04 * (1 - 1 / FASTER["bfloat16"])
    assert exact.training(MODEL, "none") - half.training(MODEL, "none") == pytest.approx(saved)
    assert exact.attack(MODEL, FGSM()) == half.attack(MODEL, FGSM())
    for chosen in FASTER:
        monkeypatch.setattr(
            time_estimate, "choose_precision", lambda device, model, size, chosen=chosen: chosen
        )
        training = estimate(planned(None), 16).training(MODEL, "none")
        assert training == estimate(planned(chosen), 16).training(MODEL, "none")


def test_progressive_resizing_saves_what_its_smaller_images_do() -> None:
    plan = planned("float32").model_copy(update={"epochs": (10,)})
    whole, grown = (estimate(plan.model_copy(update={"progressive": part}), 16) for part in (1.0, 0.5))
    update = 100 * (0.3 + 1e6 * 1e-9)
    saved = (grown.training(MODEL, "none") - update) / (whole.training(MODEL, "none") - update)
    assert saved == pytest.approx(0.3 * 0.25 + 0.3 * 0.5625 + 0.4)


def test_cells_side_by_side_end_with_the_last() -> None:
    plan = planned("float32").model_copy(update={"seeds": (0, 1, 2)})
    found = estimate(plan, 16)
    one = found.cell(next(plan.cells()))
    assert found.side_by_side(1) == pytest.approx(found.total()) == pytest.approx(3 * one)
    assert found.side_by_side(2) == pytest.approx(2 * one)
    assert found.side_by_side(8) == pytest.approx(one)
    assert found.side_by_side(2, frozenset(cell.slug for cell in plan.cells())) == 0


@pytest.mark.parametrize("precision", FASTER)
def test_a_network_is_timed(precision: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5)).to("meta")
    timed = pass_times.time_passes(network, 8, Runtime("cpu", precision))
    step = timed.training["all"]
    assert step.parameters == sum(each.numel() for each in network.parameters())
    for each in (timed.attack, step.gradient):
        assert each.image > 0
        assert each.batch >= 0


def test_a_pass_has_a_part_for_the_batch_and_one_for_each_image() -> None:
    assert PassTime(0.5, 0.01).of(100, 50) == pytest.approx(100 * 0.01 + 2 * 0.5)


def test_a_network_that_fails_takes_no_time() -> None:
    timed = pass_times.time_passes(nn.Linear(3, 5).to("meta"), 8, Runtime("cpu"))
    assert timed.training["all"].gradient == timed.attack == PassTime(0.0, 0.0)


def test_each_stage_takes_what_its_part_does() -> None:
    plan = planned("float32").model_copy(update={"epochs": (3,), "train": "head:epochs=2,all"})
    whole = 400 * 0.04 + 10 * (0.3 + 1e6 * 1e-9)
    head = 400 * 0.01 + 10 * (0.1 + 1e3 * 1e-9)
    assert estimate(plan, 16).training(MODEL, "none") == pytest.approx(2 * head + whole)


def test_frozen_layers_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).to(
        "meta"
    )
    trained: list[int] = []

    def timed(work: object, size: int, runtime: Runtime) -> PassTime:
        trained.append(sum(each.numel() for each in pass_times.trained_of(network)))
        return PassTime(0.0, 1.0)

    monkeypatch.setattr(pass_times, "_timed", timed)
    found = pass_times.time_passes(network, 8, Runtime("cpu"), ["all", "last:1"])
    head, whole = 4 * 5 + 5, 4 * 5 + 5 + 3 * 4 + 4
    assert trained == [whole, head, 0]  # the last is the attack
    assert [step.parameters for step in found.training.values()] == [whole, head]


def test_the_shortest_of_several_passes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # Other work slows some passes down. Each batch size starts with one that prepares kernels.
    slow = iter([0.5, 1.0, 7.0, 1.2, 8.0, 0.5, 3.0, 5.0, 3.1, 6.0])
    monkeypatch.setattr(pass_times, "_LONG_ENOUGH", 1e9)
    monkeypatch.setattr(pass_times, "_seconds", lambda *_: next(slow))
    timed = pass_times._timed(lambda images: None, 8, Runtime("cpu"))
    assert timed == PassTime(pytest.approx(1.0 - 4 * (3.0 - 1.0) / 8), pytest.approx((3.0 - 1.0) / 8))


def test_an_estimate_names_the_hours_of_each_row_and_of_all() -> None:
    plan = planned("float32").model_copy(update={"seeds": (0, 1, 2), "defenses": ("none", "fgsm-at")})
    costs = estimate(plan, 16).expected(4)
    *rows, whole, longest = estimate_lines(plan, costs)
    assert [row.split(":")[0] + row.split(":")[1] for row in rows] == [
        "timmtest_resnet + fgsm-at, 3 seeds",
        "timmtest_resnet + none, 3 seeds",
    ]
    seconds = [each.total for each in costs.cells.values()]
    assert f"{sum(seconds) / 3600:.3g} hours of cpu; with 4 cells at a time" in whole
    assert "fgsm-at, seed 0" in longest
