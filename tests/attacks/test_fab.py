"""FAB: its projections against solvers, its steps against torchattacks', its verdicts against the model.

torchattacks 3.5.1 holds a copy of the reference code, with two faults: it takes ``n_classes - 1`` targets,
and it solves the projections with float32 running sums, off by 1e-4; the sums here are off by 1e-8.
Points exactly on the boundary may therefore fall on either side of it, and the paths diverge there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor, nn
from toys import TOY_CLASSES, Toy

from robustbench_tin import perturb
from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.engine.box_projection import change_by, length
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.attacks.engine.state import AttackInputs
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopRunner
from robustbench_tin.attacks.fab import FAB, FABT
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import ThreatModel

EPS = {"linf": 0.03, "l2": 0.5}
BOTH_NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
PIXEL = st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=32)
WEIGHT = st.just(0.0) | st.floats(-1, 1, width=32).filter(lambda value: abs(value) > 1e-3)


@st.composite
def planes(draw: st.DrawFn) -> tuple[Tensor, Tensor, float]:
    """A point of the box, a gradient, and the change that is wanted."""
    size = draw(st.integers(1, 6))
    point = draw(st.lists(PIXEL, min_size=size, max_size=size))
    weights = draw(st.lists(WEIGHT, min_size=size, max_size=size))
    return torch.tensor([point]), torch.tensor([weights]), draw(st.floats(-3, 3, width=32))


def most_gained(point: Tensor, weights: Tensor, sign: float) -> float:
    room = torch.where(weights * sign > 0, 1 - point, point)
    return float((weights.abs() * room).double().sum())


def shortest(point: Tensor, weights: Tensor, amount: float, norm: str) -> float:
    """The length of the shortest change, by a general solver."""
    x, w = point[0].double().numpy(), weights[0].double().numpy()
    bounds = list(zip(-x, 1 - x, strict=True))
    if norm == "linf":
        size = len(x)
        cost = np.append(np.zeros(size), 1)
        within = np.block([[np.eye(size), -np.ones((size, 1))], [-np.eye(size), -np.ones((size, 1))]])
        found = linprog(
            cost,
            A_ub=within,
            b_ub=np.zeros(2 * size),
            A_eq=np.append(w, 0)[None],
            b_eq=[amount],
            bounds=[*bounds, (0, None)],
        )
        return float(found.fun)
    plane = {"type": "eq", "fun": lambda d: w @ d - amount, "jac": lambda d: w}
    found = minimize(
        lambda d: d @ d,
        np.zeros(len(x)),
        jac=lambda d: 2 * d,
        bounds=bounds,
        constraints=[plane],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return float(np.sqrt(found.fun))


@BOTH_NORMS
@given(planes())
def test_a_projection_is_the_shortest_way_a_solver_finds(
    norm: str, plane: tuple[Tensor, Tensor, float]
) -> None:
    point, weights, amount = plane
    change = change_by(point, weights, torch.tensor([amount]), norm)
    moved = point + change
    assert moved.min() >= 0
    assert moved.max() <= 1
    gained = float((weights.double() * change.double()).sum())
    most = most_gained(point, weights, np.sign(amount))
    if abs(amount) >= most:
        assert abs(gained) == pytest.approx(most, abs=1e-5)
        return
    assert gained == pytest.approx(amount, abs=1e-5)
    if abs(amount) < 0.999 * most:
        assert float(length(change, norm)) == pytest.approx(
            shortest(point, weights, amount, norm), abs=2e-5, rel=1e-4
        )


@BOTH_NORMS
@given(planes(), st.sampled_from([2.0**-100, 2.0**-40, 2.0**40, 2.0**100]))
def test_a_projection_does_not_depend_on_the_scale_of_the_logits(
    norm: str, plane: tuple[Tensor, Tensor, float], scale: float
) -> None:
    point, weights, amount = plane
    change = change_by(point, weights, torch.tensor([amount]), norm)
    scaled = change_by(point, weights * scale, torch.tensor([amount]) * scale, norm)
    assert torch.allclose(change, scaled, atol=1e-6)


@BOTH_NORMS
def test_many_rows_are_projected_as_each_alone(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(16, 3, 8, 8, generator=generator)
    gradients = torch.randn(16, 3, 8, 8, generator=generator)
    amounts = torch.linspace(-60, 60, 16)
    together = change_by(points, gradients, amounts, norm)
    for row in range(16):
        alone = change_by(points[row : row + 1], gradients[row : row + 1], amounts[row : row + 1], norm)
        assert torch.allclose(together[row : row + 1], alone, atol=1e-7)


def right(toy: Toy) -> tuple[Tensor, Tensor]:
    """The images that the network gets right, which is all that the reference attacks."""
    with torch.no_grad():
        chosen = toy.model(toy.images).argmax(dim=1) == toy.labels
    return toy.images[chosen], toy.labels[chosen]


def searched(toy: Toy, attack: FAB, norm: str) -> Any:
    images, labels = right(toy)
    ball = ThreatModel(norm, EPS[norm]).ball(images)
    with AttackedModel(toy.model) as attacked:
        inputs = AttackInputs(
            labels, ball, attacked.logits(images), Criterion(1), torch.Generator().manual_seed(0)
        )
        search = attack.begin(inputs)
        while bool((search.queries_left > 0).any()):
            search.move(search.ask(attacked))
    return search


def theirs(toy: Toy, norm: str, steps: int, *, target: int | None) -> Tensor:
    """torchattacks' nearest adversarial points."""
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = right(toy)
    attack = torchattacks.FAB(
        toy.model,
        norm={"linf": "Linf", "l2": "L2"}[norm],
        eps=EPS[norm],
        steps=steps,
        multi_targeted=target is not None,
        n_classes=TOY_CLASSES,
    )
    if target is None:
        found: Tensor = attack.attack_single_run(images, labels)
    else:
        attack.target_class = target + 1
        found = attack.attack_single_run_targeted(images, labels)
    return found


@BOTH_NORMS
@pytest.mark.parametrize("target", [None, 1, 3])
def test_one_step_from_the_clean_image_is_that_of_torchattacks(
    toy: Toy, norm: str, target: int | None
) -> None:
    attack = FAB(steps=1) if target is None else FABT(steps=1, target=target)
    search = searched(toy, attack, norm)
    expected = theirs(toy, norm, 1, target=target)
    found = search.nearest_distance.isfinite()
    assert found.float().mean() > 0.9
    assert torch.equal(found, (expected != right(toy)[0]).flatten(1).any(dim=1))
    assert (search.nearest - expected)[found].abs().max() <= 5e-7


@BOTH_NORMS
@pytest.mark.parametrize("target", [None, 1])
def test_ten_steps_come_as_near_as_those_of_torchattacks(toy: Toy, norm: str, target: int | None) -> None:
    attack = FAB(steps=10) if target is None else FABT(steps=10, target=target)
    search = searched(toy, attack, norm)
    expected = theirs(toy, norm, 10, target=target)
    same = (search.nearest - expected).abs().amax(dim=(1, 2, 3)) <= 1e-5
    assert same.float().mean() >= 0.9
    distance = search.inputs.ball.distance(expected)
    assert search.nearest_distance.mean() == pytest.approx(float(distance.mean()), rel=0.01)
    assert ((search.nearest_distance <= EPS[norm]) != (distance <= EPS[norm])).sum() <= 1


@BOTH_NORMS
@pytest.mark.parametrize("attack", [FAB(steps=10), FABT(steps=10, target=1)])
def test_the_nearest_points_found_are_adversarial(toy: Toy, norm: str, attack: FAB) -> None:
    search = searched(toy, attack, norm)
    found = search.nearest_distance.isfinite()
    with torch.no_grad():
        margin = Criterion(1).margin(toy.model(search.nearest), right(toy)[1])
    # The nearest of them lie on the boundary: another order of sums may move them across it.
    assert (margin[found] >= -1e-5).all()
    assert (margin[~found] < 0).all()
    assert found.float().mean() > 0.9
    assert torch.equal(search.inputs.ball.distance(search.nearest)[found], search.nearest_distance[found])


def survivors(toy: Toy, spec: str, norm: str, rows: int) -> set[int]:
    """Which of the first 32 images survive if a batch holds ``rows`` rows."""
    attack = parse_attack(spec)
    images, labels = toy.images[:32], toy.labels[:32]
    threat = ThreatModel(norm, EPS[norm] * (2 if attack.criterion == "top5" else 1))
    batches = ImageBatches(images, labels, rows, torch.device("cpu"))
    with AttackedModel(toy.model) as attacked:
        runner = EarlyStopRunner(attacked, batches, threat, attack.goal, attacked.logits(images))
        result = runner.attack(attack, keep_images=True)
        assert result.images is not None
        assert torch.equal(attack.goal.success(attacked.logits(result.images), labels), result.success)
    assert threat.ball(images).contains(result.images).all()
    return set(runner.survivors().tolist())


@BOTH_NORMS
@pytest.mark.parametrize(
    "spec", ["fab:steps=4", "fab-t:steps=8,targets=3", "fab-t:criterion=top5,steps=8,targets=2"]
)
def test_rows_that_come_and_go_change_no_verdict(toy: Toy, spec: str, norm: str) -> None:
    """Without a random start, an image's path does not depend on the other images of its batch."""
    whole = survivors(toy, spec, norm, 32)
    assert 0 < len(whole) < 32
    assert survivors(toy, spec, norm, 7) == whole


@BOTH_NORMS
def test_until_broken_and_the_fixed_budget_break_the_same_images(toy: Toy, norm: str) -> None:
    for spec in ("fab:steps=4", "fab-t:steps=8,target=1"):
        attack = parse_attack(f"{spec},criterion=none")
        with AttackedModel(toy.model) as attacked:
            moved = perturb_images(
                attack, attacked, toy.images[:32], toy.labels[:32], [EPS[norm]], norm=norm
            )[0]
            success = attack.goal.success(attacked.logits(moved), toy.labels[:32])
        assert set((~success).nonzero().squeeze(1).tolist()) == survivors(toy, spec, norm, 32)


@BOTH_NORMS
def test_more_targets_and_restarts_never_spare_an_image(toy: Toy, norm: str) -> None:
    one = survivors(toy, "fab-t:steps=4,target=1", norm, 32)
    assert survivors(toy, "fab-t:steps=4,targets=4", norm, 32) <= one
    assert survivors(toy, "fab-t:restarts=3,steps=4,target=1", norm, 32) <= one


@BOTH_NORMS
@pytest.mark.parametrize("name", ["fab", "fab-t"])
def test_the_top5_boundary_is_farther_than_the_top1_boundary(toy: Toy, norm: str, name: str) -> None:
    images, labels = (rows[:24] for rows in right(toy))
    ball = ThreatModel(norm, EPS[norm]).ball(images)
    distances = []
    for k in (1, 5):
        attack = parse_attack(f"{name}:steps=10" + (",target=1" if name == "fab-t" else ""))
        assert isinstance(attack, FAB)
        with AttackedModel(toy.model) as attacked:
            inputs = AttackInputs(labels, ball, attacked.logits(images), Criterion(k), torch.Generator())
            search = attack.begin(inputs)
            while bool((search.queries_left > 0).any()):
                search.move(search.ask(attacked))
            margin = Criterion(k).margin(attacked.logits(search.nearest), labels)
            assert (margin[search.nearest_distance.isfinite()] >= -1e-5).all()
        distances.append(search.nearest_distance)
    found = distances[0].isfinite() & distances[1].isfinite()
    assert found.float().mean() > 0.7
    assert (distances[1] > distances[0])[found].float().mean() > 0.9


@pytest.mark.parametrize(
    ("spec", "forward", "backward"),
    [
        # A forward pass for the clean logits; a step: one for the gradients, one at the point it leads to.
        ("fab:criterion=none,steps=3", 1 + 3 * 2, 3 * TOY_CLASSES),
        ("fab-t:criterion=none,steps=3,target=2", 1 + 3 * 2, 3),
        # Two starts or targets need one pass more each, to tell which was worse.
        ("fab:criterion=none,restarts=2,steps=3", 1 + 2 * (3 * 2 + 1), 2 * 3 * TOY_CLASSES),
        ("fab-t:criterion=none,steps=3,targets=4", 1 + 4 * (3 * 2 + 1), 4 * 3),
    ],
)
def test_passes_are_counted_an_image(toy: Toy, spec: str, forward: int, backward: int) -> None:
    with AttackedModel(toy.model) as attacked:
        perturb_images(parse_attack(spec), attacked, toy.images[:5], toy.labels[:5], [0.01])
    assert (attacked.forward_passes, attacked.backward_passes) == (5 * forward, 5 * backward)


def test_random_starts_are_half_way_to_the_edge(toy: Toy) -> None:
    for norm, eps in EPS.items():
        ball = ThreatModel(norm, eps).ball(torch.full((8, 3, 16, 16), 0.5))
        inputs = AttackInputs(
            torch.zeros(8, dtype=torch.int64), ball, torch.zeros(8, 10), Criterion(1), torch.Generator()
        )
        start = FAB(random_start=True).begin(inputs).points
        assert torch.allclose(ball.distance(start), torch.tensor(eps / 2, dtype=torch.float64), rtol=1e-5)
        assert torch.equal(FAB().begin(inputs).points, ball.images)


def test_the_stages_are_the_targets_there_are_and_their_starts() -> None:
    assert [stage.spec for stage in FAB(restarts=2).stages(10)] == ["fab", "fab:random_start=True"]
    assert len(FABT().stages(200)) == 9
    assert [stage.spec for stage in FABT().stages(3)] == ["fab-t:target=1", "fab-t:target=2"]
    assert len(FABT(criterion="top5").stages(10)) == 5
    assert len(FABT(restarts=3, targets=2).stages(10)) == 6


def test_a_target_or_a_goal_that_there_is_not_is_the_users_mistake(toy: Toy) -> None:
    with pytest.raises(InvalidSettingError, match=r"got target=10 with 10 classes; expected at most 9"):
        perturb(toy.model, toy.images, toy.labels, "fab-t:target=10", 0.1)
    one_class = nn.Sequential(nn.Flatten(), nn.Linear(768, 1))
    for spec in ("fab", "fab-t", "fab:criterion=none", "fab-t:criterion=none"):
        with pytest.raises(InvalidSettingError, match=r"with 1 classes, so no attack can succeed"):
            perturb(one_class, toy.images[:2], torch.zeros(2, dtype=torch.int64), spec, 0.1)


@pytest.mark.parametrize(
    "setting",
    ["steps=0", "restarts=0", "alpha_max=-0.1", "alpha_max=2", "eta=0.5", "eta=inf", "beta=1.5", "beta=nan"],
)
def test_settings_out_of_range_are_refused_by_name(setting: str) -> None:
    for name in ("fab", "fab-t"):
        with pytest.raises(InvalidSettingError, match=rf"attack '{name}' got {setting.partition('=')[0]}="):
            parse_attack(f"{name}:{setting}")
    for setting in ("targets=0", "target=0"):
        with pytest.raises(InvalidSettingError, match=rf"attack 'fab-t' got {setting}"):
            parse_attack(f"fab-t:{setting}")


@BOTH_NORMS
def test_a_model_without_any_slope_leaves_images_finite(toy: Toy, norm: str) -> None:
    class Flat(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 0 * images.flatten(1)[:, :4] + torch.tensor([4.0, 3.0, 2.0, 1.0])

    for spec in ("fab:steps=2", "fab-t:steps=2", "fab:criterion=none,steps=2"):
        moved = perturb(Flat(), toy.images[:4], torch.zeros(4, dtype=torch.int64), spec, 0.1, norm)
        assert torch.isfinite(moved).all()
