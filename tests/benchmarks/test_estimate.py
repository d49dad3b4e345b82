"""The time said before a run starts: passes are counted, and a pass of each network is timed."""

from __future__ import annotations

import pytest
from torch import nn

from robustbench_tin.attacks.fgsm import FGSM
from robustbench_tin.benchmarks.cells import pass_times, time_estimate
from robustbench_tin.benchmarks.cells.pass_times import PassTime, PassTimes
from robustbench_tin.benchmarks.cells.time_estimate import estimate
from robustbench_tin.benchmarks.planning.plan import Plan
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
    def passes(skeleton: nn.Module, size: int, runtime: Runtime) -> PassTimes:
        return PassTimes(PassTime(0.5, 0.01), PassTime(0.3, 0.04 / FASTER[runtime.precision]), 1_000_000)

    monkeypatch.setattr(time_estimate, "time_passes", passes)


def test_steps_and_gradients_are_counted() -> None:
    found = estimate(planned("float32"), 16)
    # 2 epochs of 400 images in 20 steps, each with an update of a million weights
    assert found.training(MODEL, "none") == pytest.approx(800 * 0.04 + 20 * (0.3 + 1e6 * 4e-9))
    # one gradient and one forward pass for 40 images in batches of 50
    assert found.attack(MODEL, FGSM()) == pytest.approx(40 * 1.4 * (0.01 + 0.5 / 50))
    assert found.total(done=frozenset(cell.slug for cell in found.plan.cells())) == 0


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
    update = 100 * (0.3 + 1e6 * 4e-9)
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
    assert timed.parameters == sum(each.numel() for each in network.parameters())
    for each in (timed.attack, timed.training):
        assert each.image > 0
        assert each.batch >= 0


def test_a_pass_has_a_part_for_the_batch_and_one_for_each_image() -> None:
    assert PassTime(0.5, 0.01).of(100, 50) == pytest.approx(100 * 0.01 + 2 * 0.5)


def test_a_network_that_fails_takes_no_time() -> None:
    timed = pass_times.time_passes(nn.Linear(3, 5).to("meta"), 8, Runtime("cpu"))
    assert timed.training == timed.attack == PassTime(0.0, 0.0)
