"""The runner: verdicts that hold, no pass wasted, a batch that stays full."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from toys import Toy

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.attacks.base import Attack, AttackFailure, IterativeAttack
from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.engine.ensemble import Ensemble
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.quantize import to_8bit
from robustbench_tin.attacks.engine.state import AttackInputs, AttackState, ModelOutput
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopResult, EarlyStopRunner
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.metrics import in_top
from robustbench_tin.threat import ThreatModel

EPS = 8 / 255


def drive(
    model: nn.Module,
    toy: Toy,
    attack: Attack,
    *,
    size: int = 24,
    eps: float = EPS,
    k: int = 1,
    finish=None,
    surrogate: nn.Module | None = None,
) -> tuple[EarlyStopResult, AttackedModel]:
    with AttackedModel(model, surrogate=surrogate) as attacked:
        clean_logits = attacked.logits(toy.images)
        batches = ImageBatches(toy.images, toy.labels, size, torch.device("cpu"))
        runner = EarlyStopRunner(
            attacked, batches, ThreatModel("linf", eps), Criterion(k), clean_logits, seed=3, finish=finish
        )
        attacked.forward_passes = 0
        return runner.attack(attack, keep_images=True), attacked


def right(model: nn.Module, images: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    with torch.no_grad():
        return in_top(model(images), labels, k)


@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_what_broke_an_image_breaks_it_and_lies_in_the_ball(toy: Toy, size: int) -> None:
    found, _ = drive(toy.model, toy, parse_attack("pgd"), size=size)
    assert found.images is not None
    assert torch.equal(right(toy.model, found.images, toy.labels), ~found.success)
    assert 0 < found.success.sum() < 64
    assert (found.images.double() - toy.images.double()).abs().max() <= EPS


def test_an_image_is_broken_wherever_the_fixed_budget_breaks_it_from_the_same_start(toy: Toy) -> None:
    attack = parse_attack("pgd:random_start=false")
    moved = perturb(toy.model, toy.images, toy.labels, attack.spec, EPS, search="exact")
    found, _ = drive(toy.model, toy, attack)
    assert (found.success | right(toy.model, moved, toy.labels)).all()


def test_rows_leave_as_soon_as_they_are_broken_and_waiting_ones_take_their_place(toy: Toy) -> None:
    sizes = []
    attack = parse_attack("pgd:steps=30")
    hook = toy.model.register_forward_hook(
        lambda _, given, __: sizes.append((len(given[0]), torch.is_grad_enabled()))
    )
    try:
        found, attacked = drive(toy.model, toy, attack, size=16)
    finally:
        hook.remove()
    searching = [rows for rows, with_gradient in sizes if with_gradient]
    # Full, except for rows that may be free before a refill, and for the end, when no image is waiting.
    assert min(searching[:30]) >= 14
    assert max(searching) == 16
    survivors = int((~found.success).sum())
    assert 30 * survivors <= attacked.backward_passes < 30 * 64
    assert attacked.backward_passes == sum(searching)


def test_images_wrong_from_the_start_are_never_attacked(toy: Toy) -> None:
    wrong = Toy(toy.model, toy.images, (toy.labels + 1) % 10)
    found, attacked = drive(toy.model, wrong, parse_attack("pgd"))
    kept = right(toy.model, toy.images, wrong.labels)
    assert kept.sum() <= 2
    assert attacked.backward_passes <= 10 * int(kept.sum())
    assert found.images is not None
    assert torch.equal(found.images[~kept], toy.images[~kept])


def test_the_second_stage_sees_only_what_the_first_left(toy: Toy) -> None:
    entered = []

    @dataclass(frozen=True, kw_only=True)
    class Two(Ensemble):
        name: ClassVar[str] = "two"

        def stages(self, classes: int):
            return [parse_attack("pgd:steps=3"), Watching()]

    @dataclass(frozen=True, kw_only=True)
    class Watching(Attack):
        name: ClassVar[str] = "watching"

        def run(self, attacked, labels, ball, generator):
            entered.append(len(labels))
            return ball.images

    found, _ = drive(toy.model, toy, Two(), size=64)
    assert [stage.attack for stage in found.stages] == ["pgd:steps=3", "watching"]
    first, second = found.stages
    assert first.entered == 64
    assert second.entered == sum(entered) == 64 - first.successes
    assert second.successes == 0
    assert found.success.sum() == first.successes


def test_restarts_are_stages(toy: Toy) -> None:
    once, _ = drive(toy.model, toy, parse_attack("pgd:steps=2"))
    thrice, _ = drive(toy.model, toy, parse_attack("pgd:steps=2,restarts=3"))
    assert [stage.attack for stage in thrice.stages] == ["pgd:steps=2"] * 3
    assert thrice.success[once.success].all()


def test_breaks_in_the_last_tenth_of_a_budget_are_told(toy: Toy) -> None:
    found, _ = drive(toy.model, toy, parse_attack("pgd:steps=100,alpha=0.0004,random_start=false"))
    slow = found.stages[0]
    assert 0 < slow.late_successes < slow.successes
    found, _ = drive(toy.model, toy, parse_attack("pgd:steps=100"))
    assert found.stages[0].late_successes == 0


def test_a_search_that_misreads_the_model_convinces_nobody(toy: Toy) -> None:
    """Its form sees every image broken; the model itself is asked, and says no."""

    class Confused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = toy.model

        def forward(self, images: Tensor) -> Tensor:
            return self.inner(images).roll(1, dims=1) if torch.is_grad_enabled() else self.inner(images)

    found, _ = drive(Confused(), toy, parse_attack("pgd:steps=2,random_start=false"), eps=1e-6)
    assert not found.success.any()
    assert found.disagreements == 2 * 64


@pytest.mark.parametrize(
    "spec", ["apgd-dlr:steps=10", "apgd-t:steps=10,targets=3", "square:queries=200", "fast"]
)
def test_what_a_search_that_sees_nothing_broken_ends_with_is_judged(toy: Toy, spec: str) -> None:
    """A variant that differs from the model in the last bit may miss an image that the model mistakes."""
    label = int(toy.labels.mode().values)
    chosen = toy.labels == label
    alike = Toy(toy.model, toy.images[chosen], toy.labels[chosen])

    class Sure(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            lead = torch.zeros(10)
            lead[label] = 1_000
            logits: Tensor = toy.model(images) + lead
            return logits

    found, _ = drive(toy.model, alike, parse_attack(spec), eps=0.1, surrogate=Sure())
    assert found.success.float().mean() > 0.6
    assert found.images is not None
    assert torch.equal(right(toy.model, found.images, alike.labels), ~found.success)


def test_what_is_changed_before_it_counts_is_what_counts(toy: Toy) -> None:
    coarse = Toy(toy.model, (toy.images * 255).round() / 255, toy.labels)
    found, _ = drive(toy.model, coarse, parse_attack("pgd"), finish=to_8bit)
    assert found.images is not None
    assert torch.equal((found.images * 255).round() / 255, found.images)
    assert torch.equal(right(toy.model, found.images, toy.labels), ~found.success)
    assert found.success.any()


def test_top5_is_a_criterion_of_its_own(toy: Toy) -> None:
    frame = evaluate(toy.model, toy.images, toy.labels, "pgd:criterion=top5,pgd:criterion=top1", 0.15).records
    top5, top1 = (frame[frame.attack == f"pgd:criterion=top{k}"].iloc[0] for k in (5, 1))
    assert top5["mode"] == "stop on success (top-5)"
    assert (top5["top1"], top1["top5"]) != (top5["top1"], top5["top5"])
    assert top5[["top1", "top1_low"]].isna().all()
    assert top1[["top5", "top5_low"]].isna().all()
    moved = perturb(toy.model, toy.images, toy.labels, "pgd:criterion=top5", 0.15)
    assert float(right(toy.model, moved, toy.labels, 5).float().mean()) == top5["top5"]


def test_a_criterion_that_nothing_could_fail_is_refused(toy: Toy) -> None:
    class FiveClasses(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return toy.model(images)[:, :5]

    labels = toy.labels % 5
    with pytest.raises(InvalidSettingError, match="top5 with 5 classes"):
        evaluate(FiveClasses(), toy.images, labels, "pgd:criterion=top5", 0.01)
    with pytest.raises(InvalidSettingError, match="criterion=top3; expected none, top1 or top5"):
        parse_attack("pgd:criterion=top3")


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_and_two_are_pools_too(toy: Toy, count: int) -> None:
    few = Toy(toy.model, toy.images[:count], toy.labels[:count])
    found, _ = drive(toy.model, few, parse_attack("pgd:steps=50"), eps=0.2)
    assert found.success.all()


@pytest.mark.parametrize("runs_out", [torch.OutOfMemoryError, MemoryError, None])
def test_memory_that_runs_out_halves_the_batch_and_nothing_else(toy: Toy, runs_out) -> None:
    class Small(nn.Module):
        asked: ClassVar[list[int]] = []

        def forward(self, images: Tensor) -> Tensor:
            self.asked.append(len(images))
            if len(images) > 10:
                if runs_out is None:  # as a CPU's does
                    torch.empty(2**60)
                raise runs_out
            return toy.model(images)

    Small.asked.clear()
    plain, _ = drive(toy.model, toy, parse_attack("pgd"))
    model = Small()
    found, _ = drive(model, toy, parse_attack("pgd"))
    assert torch.equal(found.success, plain.success)
    # Halved until it fitted, and never tried larger again.
    assert [rows for rows in model.asked if rows > 10] == [64, 32, 16]


def test_memory_too_small_for_one_image_is_a_failure(toy: Toy) -> None:
    class Tiny(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise torch.OutOfMemoryError

    with (
        AttackedModel(Tiny()) as attacked,
        pytest.raises(AttackFailure, match="out of memory with a single image"),
    ):
        attacked.logits(toy.images)


@pytest.mark.parametrize("spoil", [float("nan"), float("inf")])
def test_a_search_that_leaves_the_numbers_is_a_failure(toy: Toy, spoil: float) -> None:
    @dataclass
    class Wild(AttackState):
        def loss(self, logits: Tensor, rows: slice) -> Tensor:
            return logits.sum(dim=1)

        def move(self, answer: ModelOutput) -> None:
            self.points = self.points * spoil
            self.queries_left = self.queries_left - 1

    @dataclass(frozen=True, kw_only=True)
    class WildAttack(IterativeAttack):
        name: ClassVar[str] = "wild"

        def begin(self, inputs: AttackInputs) -> AttackState:
            return Wild(inputs, inputs.ball.images, torch.full_like(inputs.labels, 2))

    with pytest.raises(AttackFailure):
        drive(toy.model, toy, WildAttack())
    assert replace(WildAttack(), criterion="top1").criterion == "top1"


def test_the_images_given_stay_as_they_are(toy: Toy) -> None:
    before = toy.images.clone()
    perturb(toy.model, toy.images, toy.labels, "pgd:criterion=top1", (0.0, 0.1))
    assert torch.equal(toy.images, before)
