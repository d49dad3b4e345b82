"""In both ways to run an attack, the host never waits for the device; and the results are still right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest
import torch
from light_attacks import SPECS
from no_waiting import DEVICE, generators_of_the_host, no_waiting
from torch import nn
from toys import TOY_CLASSES, Toy, build_toy_model

from robustbench_tin import evaluate, perturb, threat
from robustbench_tin.attacks import parse_attack, square
from robustbench_tin.attacks.acceleration.variant_label import VariantLabel
from robustbench_tin.attacks.acceleration.variants import ModelVariant
from robustbench_tin.attacks.base import Attack, AttackedModel, AttackFailure, IterativeAttack
from robustbench_tin.attacks.engine import box_projection, finite_check
from robustbench_tin.attacks.engine import stop_on_success as runner
from robustbench_tin.attacks.engine.box_projection import change_by
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.attacks.engine.spot_checks import SpotChecks
from robustbench_tin.attacks.engine.state import AttackInputs, AttackState, ModelOutput
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopRunner
from robustbench_tin.attacks.square import Square
from robustbench_tin.threat import NORMS, Ball, ThreatModel

LOOKERS = (runner, box_projection, finite_check, square, threat)


def stages_of(spec: str) -> list[Attack]:
    return list(parse_attack(spec).stages(TOY_CLASSES))


@contextmanager
def attacked() -> Iterator[tuple[AttackedModel, torch.Tensor, torch.Tensor]]:
    """An attacked model, images and labels on the device that no one may wait for."""
    with DEVICE:
        model = build_toy_model().eval()
        images, labels = torch.rand(6, 3, 16, 16), torch.zeros(6, dtype=torch.long)
    with generators_of_the_host(), AttackedModel(model) as entered:
        yield entered, images, labels
        entered._passes.finite.clear()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spec", SPECS)
def test_no_step_waits(spec: str, norm: str) -> None:
    with attacked() as (entered, images, labels):
        ball = ThreatModel(norm, 0.03).ball(images)
        clean = torch.zeros(6, TOY_CLASSES, device=DEVICE)
        batches = ImageBatches(images, labels, 6, DEVICE)
        looking = EarlyStopRunner(entered, batches, ThreatModel(norm, 0.03), parse_attack(spec).goal, clean)
        for stage in stages_of(spec):
            generator = torch.Generator(DEVICE)
            if not isinstance(stage, IterativeAttack):
                with no_waiting():
                    stage.sweep(entered, labels, [ball, ball], [generator, generator])
                continue
            if isinstance(stage, Square) and norm == "l2":
                continue  # it sorts its windows by their sizes on the host: a batch holds a few of them
            search = stage.begin(AttackInputs(labels, ball, clean, stage.goal, generator))
            search.move(search.ask(entered))  # constants are copied to the device once
            with no_waiting():
                search.move(search.ask(entered))
                looking._advance(search, 2)


def test_gathering_points_to_compare_a_form_at_does_not_wait() -> None:
    with attacked() as (entered, images, _):
        with DEVICE:
            variant = ModelVariant(build_toy_model(), VariantLabel(fused=True))
        entered.used_variants[0] = variant
        checks = SpotChecks(entered)
        logits = torch.zeros(6, TOY_CLASSES, device=DEVICE)
        with no_waiting():
            entered._passes.raw_output(variant, images)
            for _ in range(30):  # until no more are taken than some of them
                checks.offer(images, logits)
            checks.insist(images)


@pytest.mark.parametrize("spec", SPECS)
def test_each_move_takes_one_question_from_every_row(toy: Toy, spec: str) -> None:
    images, labels = toy.images[:5], toy.labels[:5]
    ball = ThreatModel("linf", 0.02).ball(images)
    with AttackedModel(toy.model) as entered:
        clean = entered.logits(images)
        for stage in stages_of(spec):
            if not isinstance(stage, IterativeAttack):
                continue
            search = stage.begin(
                AttackInputs(labels, ball, clean, stage.goal, torch.Generator().manual_seed(0))
            )
            before = search.queries_left
            search.move(search.ask(entered))
            assert torch.equal(search.queries_left, before - 1)


@contextmanager
def looking_as_on_a_gpu() -> Iterator[None]:
    """Inside, the CPU is treated as a device that the host would have to wait for."""
    with ExitStack() as stack:
        for module in LOOKERS:
            stack.enter_context(mock.patch.object(module, "is_asynchronous", return_value=True))
        yield


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spec", SPECS)
def test_fewer_looks_break_as_many_images(toy: Toy, spec: str, norm: str) -> None:
    eps, options = (0.04 if norm == "linf" else 0.8), {"norm": norm, "search": "exact", "batch_size": 12}
    seen = evaluate(toy.model, toy.images, toy.labels, spec, eps, **options).records
    with looking_as_on_a_gpu():
        unseen = evaluate(toy.model, toy.images, toy.labels, spec, eps, **options).records
        moved = perturb(toy.model, toy.images, toy.labels, spec, eps, **options)
    assert list(unseen["status"]) == ["ok", "ok"]
    # Rows come and go at other times, so random attacks draw other numbers for them.
    assert abs(unseen["top1"].iloc[1] - seen["top1"].iloc[1]) <= 0.1
    assert bool(ThreatModel(norm, eps).ball(toy.images).contains(moved).all())


class Walk(AttackState):
    """Moves its points in place, one value a step, and is broken at some of them only."""

    def ask(self, entered: AttackedModel) -> ModelOutput:
        return ModelOutput(entered.search_logits(self.points))

    def move(self, answer: ModelOutput) -> None:
        self.points += 0.01
        self.queries_left -= 1


class Walking(IterativeAttack):
    name = "walking"

    def begin(self, inputs: AttackInputs) -> AttackState:
        return Walk(inputs, inputs.ball.images.clone(), torch.full_like(inputs.labels, 20))


class BetweenTwoValues(nn.Module):
    """Wrong while an image's mean lies in a narrow band, right before and after."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.mean(dim=(1, 2, 3))
        wrong = ((mean > 0.545) & (mean < 0.565)).float()
        return torch.stack([1 - wrong, wrong], dim=1)


@pytest.mark.parametrize("unseen", [False, True])
def test_a_point_that_broke_an_image_is_kept_though_the_search_moved_on(unseen: bool) -> None:
    images, labels = torch.full((7, 3, 4, 4), 0.5), torch.zeros(7, dtype=torch.long)
    model = BetweenTwoValues()
    with ExitStack() as stack:
        if unseen:
            stack.enter_context(looking_as_on_a_gpu())
        entered = stack.enter_context(AttackedModel(model))
        batches = ImageBatches(images, labels, 3, torch.device("cpu"))
        attack = Walking()
        found = EarlyStopRunner(
            entered, batches, ThreatModel("linf", 0.3), attack.goal, model(images)
        ).attack(attack, keep_images=True)
    assert bool(found.success.all())
    assert found.images is not None
    assert model(found.images).argmax(dim=1).tolist() == [1] * 7


class NotFiniteAt(nn.Module):
    """Gives a logit that is no number in its n-th pass."""

    def __init__(self, base: nn.Module, passes: int) -> None:
        super().__init__()
        self.base, self.queries_left = base, passes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.queries_left -= 1
        return self.base(images) * (torch.nan if self.queries_left == 0 else 1.0)


@pytest.mark.parametrize("spec", ["pgd:steps=6", "pgd:steps=6,criterion=top1", "square:queries=9"])
def test_a_number_that_is_not_finite_fails_the_measure_however_late_it_is_looked_at(
    toy: Toy, spec: str
) -> None:
    with looking_as_on_a_gpu(), AttackedModel(NotFiniteAt(toy.model, 4)) as entered:
        with pytest.raises(AttackFailure, match="logits are not finite"):
            perturb_images(parse_attack(spec), entered, toy.images[:4], toy.labels[:4], [0.01])
        entered.require_finite()  # the fault is forgotten


def test_leaving_an_oracle_tells_what_no_one_looked_at(toy: Toy) -> None:
    with (
        looking_as_on_a_gpu(),
        pytest.raises(AttackFailure, match="logits are not finite"),
        AttackedModel(NotFiniteAt(toy.model, 1)) as entered,
    ):
        entered.search_logits(toy.images[:2])


@pytest.mark.parametrize("norm", NORMS)
def test_the_hyperplane_is_reached_without_a_look(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(32, 3, 16, 16, generator=generator)
    gradient = torch.randn(32, 3, 16, 16, generator=generator)
    most = (gradient.abs() * torch.where(gradient > 0, 1 - points, points)).flatten(1).sum(dim=1)
    for part in (0.001, 0.1, 0.4):
        looked = change_by(points, gradient, part * most, norm)
        with looking_as_on_a_gpu():
            unseen = change_by(points, gradient, part * most, norm)
        torch.testing.assert_close(unseen, looked, rtol=1e-5, atol=1e-7)


def test_projection_onto_an_l2_ball_is_as_good_without_a_look() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(64, 3, 8, 8, generator=generator)
    candidates = images + torch.randn(64, 3, 8, 8, generator=generator) * torch.logspace(-4, 0, 64).view(
        -1, 1, 1, 1
    )
    for eps in (1e-7, 1e-3, 0.5):
        ball: Ball = ThreatModel("l2", eps).ball(images)
        with looking_as_on_a_gpu():
            moved = ball.project(candidates)
        assert bool(ball.contains(moved).all())
        inside = ball.contains(candidates)
        assert torch.equal(moved[inside], candidates[inside])
        reached = ball.distance(moved)[~inside]
        boxed = ball.distance(candidates.clamp(0, 1))[~inside]
        if eps > 1e-6:  # below, rounding to float32 rules
            assert bool((reached >= boxed.clamp(max=eps) * (1 - 1e-2)).all())
