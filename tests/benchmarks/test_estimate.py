"""The time said before a run starts: counted work over what the machine does in the precision of each."""

from __future__ import annotations

import pytest

from robustbench_tin.attacks.fgsm import FGSM
from robustbench_tin.benchmarks.cells import time_estimate as estimate
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.runtime import Runtime

MODEL = "timm:test_resnet"
RATES = {"float32": 1e9, "bfloat16": 4e9}


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
def _rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_flops_per_second", lambda runtime: RATES[runtime.precision])


def test_training_is_estimated_in_its_precision_and_attacks_in_float32() -> None:
    exact, half = (estimate.estimate(planned(precision), 16) for precision in RATES)
    arithmetic = [
        each.training(MODEL, "none") - each.costs[MODEL].parameters * 20 * 3e-9 for each in (exact, half)
    ]
    assert arithmetic[0] == pytest.approx(4 * arithmetic[1])
    assert exact.attack(MODEL, FGSM()) == half.attack(MODEL, FGSM()) > 0
    assert exact.total() - half.total() == pytest.approx(arithmetic[0] - arithmetic[1])
    assert exact.total(done=frozenset(cell.slug for cell in exact.plan.cells())) == 0


def test_where_none_is_given_it_is_the_precision_that_training_will_choose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for chosen in RATES:
        monkeypatch.setattr(estimate, "choose_precision", lambda device, model, size, chosen=chosen: chosen)
        training = estimate.estimate(planned(None), 16).training(MODEL, "none")
        assert training == estimate.estimate(planned(chosen), 16).training(MODEL, "none")


@pytest.mark.parametrize("precision", RATES)
def test_the_machine_is_timed_in_a_precision(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert estimate._flops_per_second(Runtime("cpu", precision)) > 1e6


def test_progressive_resizing_saves_what_its_smaller_images_do() -> None:
    plan = planned("float32").model_copy(update={"epochs": (10,)})
    whole, grown = (
        estimate.estimate(plan.model_copy(update={"progressive": part}), 16) for part in (1.0, 0.5)
    )
    update = whole.costs[MODEL].parameters * 100 * 3e-9
    saved = (grown.training(MODEL, "none") - update) / (whole.training(MODEL, "none") - update)
    assert saved == pytest.approx(0.3 * 0.25 + 0.3 * 0.5625 + 0.4)
