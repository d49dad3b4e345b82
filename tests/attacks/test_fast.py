"""The quick ensemble: as strong as far longer attacks, and it continues if its curve says so."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from torch import Tensor, nn
from toys import Toy

from robustbench_tin import evaluate
from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.engine.stop_on_success import StageReport
from robustbench_tin.attacks.fast import Fast, expected
from robustbench_tin.errors import InvalidSettingError


def reports(*successes: int, entered: int = 100) -> Sequence[StageReport]:
    return [StageReport("margin", entered, count, 0) for count in successes]


def kept(toy: Toy, model: nn.Module, attack: str, eps: float, norm: str = "linf") -> float:
    frame = evaluate(model, toy.images, toy.labels, attack, eps, norm).records
    row = frame[frame["attack"] != "clean"].iloc[0]
    assert row["status"] == "ok"
    return float(row["top5"] if "top5" in attack else row["top1"])


@pytest.mark.parametrize(("norm", "eps"), [("linf", 6 / 255), ("linf", 8 / 255), ("l2", 0.6), ("l2", 0.9)])
def test_it_leaves_what_a_far_longer_attack_leaves(toy: Toy, norm: str, eps: float) -> None:
    long = kept(toy, toy.model, "pgd:steps=100,restarts=3,criterion=top1", eps, norm)
    assert 0 < long < 1
    assert kept(toy, toy.model, "fast", eps, norm) <= long


def test_it_asks_few_questions(toy: Toy) -> None:
    frame = evaluate(toy.model, toy.images, toy.labels, "fast", 8 / 255).records
    row = frame[frame["attack"] == "fast"].iloc[0]
    survivors = row["top1"] * 64
    assert row["backward_passes"] <= 75 * survivors + 35 * (64 - survivors)
    assert "more successes expected" in row["remarks"]


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_the_scale_of_the_logits_changes_nothing(toy: Toy, scale: float) -> None:
    class Scaled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return scale * toy.model(images)

    assert kept(toy, Scaled(), "fast", 8 / 255) == kept(toy, toy.model, "fast", 8 / 255)


def test_top5_is_broken_too(toy: Toy) -> None:
    long = kept(toy, toy.model, "pgd:steps=60,criterion=top5", 0.15)
    assert long > 0
    assert kept(toy, toy.model, "fast:criterion=top5", 0.15) <= long


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes_have_fewer_targets(toy: Toy, classes: int) -> None:
    class Fewer(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return toy.model(images)[:, :classes]

    chosen = toy.labels < classes
    few = Toy(toy.model, toy.images[chosen], toy.labels[chosen])
    assert kept(few, Fewer(), "fast", 0.2) < 0.5
    targets = [getattr(stage, "target", None) for stage in Fast().stages(classes)]
    assert targets == [None, None, *range(2, min(classes, 4))]


def test_a_curve_that_has_come_to_rest_ends_it() -> None:
    assert expected(reports(60, 3, 0, 0)) == 0
    assert Fast().next_stage(reports(60, 3, 0, 0), 10) is None


def test_a_curve_that_still_falls_makes_it_go_on_and_say_so() -> None:
    falling = reports(40, 8, 4, 2)
    assert expected(falling) == pytest.approx(6 * (6 / 48) / (1 - 6 / 48))
    further = Fast().next_stage(falling, 10)
    assert further is not None
    assert further.spec == "margin:target=1"
    assert Fast(tolerance=0.05).next_stage(falling, 10) is None


def test_no_more_are_expected_to_break_than_are_left() -> None:
    """If the first stage broke eight of eight images, none is left; after eighty of a hundred, twenty are."""
    assert expected(reports(8, entered=8)) == 0
    assert Fast().conclusions(reports(8, entered=8)) == (
        "fast: successes of its last stages: 8 of 8; about 0.0 more successes expected",
    )
    assert expected(reports(80)) == 20


def test_it_never_goes_on_for_ever() -> None:
    many = reports(*[5] * 16)
    assert Fast().next_stage(many[:15], 10) is not None
    assert Fast().next_stage(many, 10) is None
    assert "use autoattack" in Fast().conclusions(many)[0]


def test_later_stages_try_other_classes_and_then_longer() -> None:
    falling = reports(*[5] * 15)
    specs = [attack.spec for n in range(4, 12) if (attack := Fast().next_stage(falling[:n], 10)) is not None]
    assert specs == [f"margin:target={rank}" for rank in (1, 4, 5, 6, 7, 8, 9)] + ["margin:steps=100"]


@pytest.mark.parametrize("setting", ["tolerance=2", "tolerance=-1", "most_stages=0", "criterion=none"])
def test_impossible_settings_are_refused(setting: str) -> None:
    with pytest.raises(InvalidSettingError, match=rf"attack 'fast' got {setting.partition('=')[0]}="):
        parse_attack(f"fast:{setting}")
