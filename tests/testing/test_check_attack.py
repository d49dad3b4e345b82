"""The contract of attacks finds each kind of wrong attack, and says which rule it breaks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from robustbench_tin import attacks
from robustbench_tin.attacks.engine import perturb
from robustbench_tin.errors import UnknownNameError
from robustbench_tin.testing import AttackContract, check_attack
from robustbench_tin.testing.attack_rules import ATTACK_RULES


@dataclass(frozen=True)
class Sound(attacks.Attack):
    """One step along the gradient."""

    length: float = 1.0

    def run(self, attacked, labels, ball, generator):
        step = self.length * ball.eps * ball.direction(attacked.gradient(ball.images, labels))
        return ball.project(ball.images + step)


@dataclass(frozen=True)
class NotANumber(Sound):
    def run(self, attacked, labels, ball, generator):
        return super().run(attacked, labels, ball, generator) * float("nan")


@dataclass(frozen=True)
class OutOfTheBall(Sound):
    def run(self, attacked, labels, ball, generator):
        return (super().run(attacked, labels, ball, generator) + 0.01).clamp(0, 1)


@dataclass(frozen=True)
class OutOfTheBox(Sound):
    def run(self, attacked, labels, ball, generator):
        return ball.images + ball.eps


@dataclass(frozen=True)
class InFloat64(Sound):
    def run(self, attacked, labels, ball, generator):
        return ball.images.double()


@dataclass(frozen=True)
class Idle(Sound):
    def run(self, attacked, labels, ball, generator):
        return ball.images


@dataclass(frozen=True)
class Squeezing(Sound):
    def run(self, attacked, labels, ball, generator):
        return super().run(attacked, labels, ball, generator).squeeze()


@dataclass(frozen=True)
class OverwritesLabels(Sound):
    def run(self, attacked, labels, ball, generator):
        moved = super().run(attacked, labels, ball, generator)
        labels.fill_(0)
        return moved


@dataclass(frozen=True)
class OverwritesImages(Sound):
    def run(self, attacked, labels, ball, generator):
        return ball.images.add_(0.001).clamp_(0, 1)


@dataclass(frozen=True)
class HidesErrors(Sound):
    def run(self, attacked, labels, ball, generator):
        try:
            return super().run(attacked, labels, ball, generator)
        except Exception:  # noqa: BLE001
            return ball.images


@dataclass(frozen=True)
class LargestForAll(Sound):
    """Moves in the largest ball, and cuts that to the others."""

    def sweep(self, attacked, labels, balls, generators):
        largest = max(range(len(balls)), key=lambda index: balls[index].eps)
        moved = self.run(attacked, labels, balls[largest], generators[largest])
        return [ball.project(moved) for ball in balls]


@dataclass(frozen=True)
class CountsItsCalls(Sound):
    """Draws from a seed of its own, which changes from call to call."""

    calls: ClassVar[list[int]] = []

    def run(self, attacked, labels, ball, generator):
        attacked.gradient(ball.images, labels)
        self.calls.append(1)
        own = torch.Generator().manual_seed(len(self.calls))
        return ball.project(ball.images + ball.eps * (2 * torch.rand(ball.images.shape, generator=own) - 1))


@dataclass(frozen=True)
class UncheckedCriterion(Sound):
    def __post_init__(self):
        pass


@dataclass(frozen=True)
class PrintsAnotherSpec(Sound):
    @property
    def spec(self):
        return "fgsm:length=2.0"


@dataclass(frozen=True)
class TakesGradientsAfterAll(Sound):
    needs_gradients: ClassVar[bool] = False


@pytest.mark.parametrize(
    ("attack", "rule", "found"),
    [
        (NotANumber(), "return float32 images inside the ball", "returned an image that is not finite"),
        (Idle(), "move images", "for eps 8/255 no image moved"),
        (Squeezing(), "accept batches of any size", "returned (3, 16, 16); expected (1, 3, 16, 16)"),
        (OverwritesLabels(), "leave the images and labels as they are", "it wrote into the labels"),
        (
            OverwritesImages(),
            "return float32 images",
            "wrote into the clean images; expected it to return new ones",
        ),
        (
            HidesErrors(),
            "fail if the model fails",
            "if the model raises, it raised nothing; expected AttackFailure",
        ),
        (
            LargestForAll(),
            "give each eps the same result as alone",
            "gives other images together with other eps",
        ),
        (CountsItsCalls(), "give each eps the same result as alone", "gives other images"),
        (UncheckedCriterion(), "refuse an impossible eps, norm or criterion", "for criterion=top9"),
        (PrintsAnotherSpec(), "have a spec that builds the same attack again", "which builds"),
        (TakesGradientsAfterAll(), "take no gradient if it says that it needs none", "took 20 gradients"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, attacks.Attack) else "",
)
def test_a_wrong_attack_is_told_the_rule_that_it_breaks(
    attack: attacks.Attack, rule: str, found: str
) -> None:
    with pytest.raises(AssertionError) as caught:
        check_attack(attack)
    text = str(caught.value)
    assert text.startswith(f"attack '{type(attack).__name__}' ")
    assert f"must {rule}" in text
    assert found in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("attack", "found"),
    [
        (OutOfTheBall(), "for eps 1e-08 it moved an image by 0.0"),
        (OutOfTheBox(), "leave the pixel box; expected values in [0, 1]"),
        (InFloat64(), "returned torch.float64; expected torch.float32"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, attacks.Attack) else "",
)
def test_the_ball_is_held_to_even_if_the_engine_did_not_verify(
    monkeypatch: pytest.MonkeyPatch, attack: attacks.Attack, found: str
) -> None:
    check_attack(OutOfTheBall())  # images that the engine moves back into the ball keep the rule
    monkeypatch.setattr(perturb, "verified", lambda candidates, ball, attack: candidates)
    with pytest.raises(AssertionError) as caught:
        check_attack(attack)
    assert "return float32 images inside the ball" in str(caught.value)
    assert found in str(caught.value)


@dataclass(frozen=True)
class OnlyLinf(Sound):
    norms: ClassVar[tuple[str, ...]] = ("linf",)


def test_an_attack_of_one_norm_is_checked_in_that_norm() -> None:
    check_attack(OnlyLinf(length=0.5))


def test_a_registered_one_is_checked_by_its_spec() -> None:
    @attacks.register("sound")
    @dataclass(frozen=True)
    class Registered(Sound):
        """As its parent."""

    check_attack("sound:length=0.5")
    with pytest.raises(UnknownNameError, match="did you mean 'sound'"):
        check_attack("sond")


def test_a_class_that_could_not_register_is_told_so() -> None:
    @dataclass(frozen=True)
    class Wrong(Sound):
        sizes: list[int] = field(default_factory=list)

    with pytest.raises(
        AssertionError, match=r"^attack 'Wrong' must be a valid class: setting sizes: list\[int\] can"
    ):
        check_attack(Wrong())


class TestContractClass(AttackContract):
    spec = OnlyLinf()


CONTRACTS = """
from robustbench_tin.testing import AttackContract

class TestKept(AttackContract):
    spec = "fgsm"

class TestBroken(AttackContract):
    spec = "noise:restarts=0"
"""


def test_the_class_for_pytest_runs_every_rule_in_every_norm(tmp_path: Path) -> None:
    (tmp_path / "test_contracts.py").write_text(CONTRACTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_contracts.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    rules = sum(2 if rule.each_norm else 1 for rule in ATTACK_RULES)
    assert f"{rules} failed, {rules} passed" in done.stdout
    assert "attack 'noise' got restarts=0; expected" in done.stdout
