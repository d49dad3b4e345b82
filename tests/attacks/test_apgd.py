"""Auto-PGD: against the paper's algorithm, two other implementations, and a model with a known answer.

The oracles and their faults:

- The paper's algorithm 1, written down a second time for a single image. Rows may diverge if a gradient's
  sign is that of rounding noise, or if a loss rose by less than rounding.
- torchattacks 3.5.1, which is the authors' code reworked. Both compare the loss after the first step with 0,
  not with that of the start, when they count rises; corrected here, iterates are equal. In its targeted l2
  attack every image takes the steps of the batch's first (``step_size[0]``), so it is given a single image.
- ART 1.20.1: it counts steps that beat the best loss instead of the last one, does not halve a window as
  published, starts inside the ball and returns the last point instead of the best, so no iterate is equal;
  its robust accuracy is.
- A linear model, whose robust accuracy is a sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import TOY_CLASSES, Toy

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.attacks.apgd import APGD, Ascent, random_boundary_points
from robustbench_tin.attacks.engine.state import AttackInputs
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.metrics import in_top
from robustbench_tin.threat import ThreatModel

NAMES = ("apgd-ce", "apgd-dlr", "apgd-t:target=1")
EVERY_NAME = pytest.mark.parametrize("name", NAMES)
EVERY_THREAT = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.012), ("l2", 0.3)])


def with_settings(name: str, settings: str) -> str:
    return f"{name}{',' if ':' in name else ':'}{settings}"


def inner(toy: Toy) -> Toy:
    """The images pulled away from 0 and 1, so that only the ball bounds them."""
    return Toy(toy.model, 0.5 * toy.images + 0.25, toy.labels)


def draw_starts(toy: Toy, norm: str, eps: float, seed: int = 0) -> Tensor:
    """On the rim, drawn as torchattacks draws them."""
    torch.manual_seed(seed)
    if norm == "linf":
        noise = 2 * torch.rand(toy.images.shape) - 1
        return toy.images + eps * noise / noise.abs().amax(dim=(1, 2, 3), keepdim=True)
    noise = torch.randn(toy.images.shape)
    return toy.images + eps * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def ascent(attack: APGD, attacked: AttackedModel, toy: Toy, norm: str, eps: float, start: Tensor) -> Ascent:
    ball = ThreatModel(norm, eps).ball(toy.images)
    inputs = AttackInputs(toy.labels, ball, attacked.logits(toy.images), attack.goal, torch.Generator())
    return Ascent.start(inputs, start, attack.objective, attack.aims(inputs), attack.steps, attack.eot)


def climb(attacked: AttackedModel, search: Ascent, questions: int = 10_000) -> Ascent:
    for _ in range(questions):
        if not bool((search.queries_left > 0).any()):
            break
        search.move(search.ask(attacked))
    return search


def climbed(spec: str, toy: Toy, norm: str, eps: float, start: Tensor) -> Ascent:
    attack = parse_attack(spec)
    assert isinstance(attack, APGD)
    with AttackedModel(toy.model) as attacked:
        return climb(attacked, ascent(attack, attacked, toy, norm, eps, start))


def rows_apart(ours: Tensor, theirs: Tensor, within: float = 1e-4) -> int:
    return int(((ours - theirs).abs().flatten(1).amax(dim=1) > within).sum())


def published(search: Ascent, toy: Toy, row: int, norm: str, eps: float, start: Tensor) -> Tensor:
    """The best point of algorithm 1 for one image that only the ball bounds; the loss is the search's."""
    image, steps = toy.images[row], search.steps

    def ask(point: Tensor) -> tuple[float, Tensor]:
        variable = point[None].clone().requires_grad_()
        loss = search.loss(toy.model(variable), slice(row, row + 1)).squeeze()
        return loss.item(), torch.autograd.grad(loss, variable)[0][0]

    def project(point: Tensor) -> Tensor:
        if norm == "linf":
            return image + (point - image).clamp(-eps, eps)
        return image + (point - image) * min(1.0, eps / float((point - image).norm()))

    def direction(gradient: Tensor) -> Tensor:
        return gradient.sign() if norm == "linf" else gradient / gradient.norm()

    checkpoints, length = [0, max(int(0.22 * steps), 1)], max(int(0.22 * steps), 1)
    while checkpoints[-1] <= steps:
        length = max(length - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
        checkpoints.append(checkpoints[-1] + length)

    eta, points = 2 * eps, [start]
    loss, gradient = ask(start)
    losses, best, seen = [loss], (loss, start, gradient), []
    for step in range(steps):
        here, weight = points[-1], 1.0 if step == 0 else 0.75
        aim = project(here + eta * direction(gradient))
        before = here if step == 0 else points[-2]
        moved = project(here + weight * (aim - here) + (1 - weight) * (here - before))
        loss, gradient = ask(moved)
        points[-1:] = [here, moved]
        losses.append(loss)
        if loss > best[0]:
            best = (loss, moved, gradient)
        if step + 1 in checkpoints:
            first = checkpoints[checkpoints.index(step + 1) - 1]
            rises = sum(losses[i + 1] > losses[i] for i in range(first, step + 1))
            same = bool(seen) and seen[-1] == (eta, best[0])
            seen.append((eta, best[0]))
            if rises <= 0.75 * (step + 1 - first) or same:
                eta, points[-1], gradient = eta / 2, best[1], best[2]
    return best[1]


@EVERY_NAME
@EVERY_THREAT
@pytest.mark.parametrize("steps", [1, 30])
def test_it_is_the_published_algorithm(toy: Toy, name: str, norm: str, eps: float, steps: int) -> None:
    toy = inner(Toy(toy.model, toy.images[:8], toy.labels[:8]))
    start = draw_starts(toy, norm, eps)
    search = climbed(with_settings(name, f"steps={steps}"), toy, norm, eps, start)
    expected = torch.stack([published(search, toy, row, norm, eps, start[row]) for row in range(8)])
    assert rows_apart(search.best_points, expected) <= 1


def torchattacks_apgd(name: str, model: nn.Module, norm: str, eps: float, steps: int) -> Any:
    """Its APGD with the count of rises corrected: ``first`` holds the loss of the start."""
    torchattacks = pytest.importorskip("torchattacks")
    targeted = name.startswith("apgd-t")

    class Corrected(torchattacks.APGDT if targeted else torchattacks.APGD):  # type: ignore[misc]
        def check_oscillation(self, x: Any, j: int, k: int, y5: Any, k3: float = 0.75) -> Any:
            losses = x.copy()
            if j + 1 < len(losses):
                losses[-1] = self.first
            return super().check_oscillation(losses, j, k, y5, k3)

    settings = {} if targeted else {"loss": name.removeprefix("apgd-")}
    attack = Corrected(model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, steps=steps, **settings)
    attack.target_class = 2
    return attack


@EVERY_NAME
@EVERY_THREAT
@pytest.mark.parametrize("steps", [30])
def test_from_the_same_start_it_goes_where_torchattacks_goes(
    toy: Toy, name: str, norm: str, eps: float, steps: int
) -> None:
    theirs = torchattacks_apgd(name, toy.model, norm, eps, steps)
    alone = name.startswith("apgd-t") and norm == "l2"
    toy = inner(Toy(toy.model, toy.images[:1], toy.labels[:1]) if alone else toy)
    search = climbed(with_settings(name, f"steps={steps}"), toy, norm, eps, draw_starts(toy, norm, eps))
    theirs.first = search.loss(toy.model(draw_starts(toy, norm, eps)), slice(None)).detach().numpy()
    torch.manual_seed(0)
    best, right, _, _ = theirs.attack_single_run(toy.images, toy.labels)
    toy.model.eval()
    assert rows_apart(search.best_points, best) <= len(toy.labels) // 16
    assert int((search.adversarial != ~right).sum()) <= len(toy.labels) // 32


def kept_by_art(toy: Toy, norm: str, eps: float, loss: str, steps: int) -> float:
    from art.attacks.evasion import AutoProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        toy.model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 16, 16),
        nb_classes=TOY_CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = AutoProjectedGradientDescent(
        classifier,
        norm=np.inf if norm == "linf" else 2,
        eps=eps,
        eps_step=2 * eps,
        max_iter=steps,
        nb_random_init=1,
        batch_size=64,
        loss_type=loss,
        verbose=False,
    )
    state = np.random.get_state()  # noqa: NPY002 - ART draws from NumPy's global generator
    np.random.seed(0)  # noqa: NPY002
    moved = torch.from_numpy(attack.generate(toy.images.numpy(), toy.labels.numpy()))
    np.random.set_state(state)  # noqa: NPY002
    with torch.no_grad():
        return float(in_top(toy.model(moved), toy.labels, 1).float().mean())


@pytest.mark.parametrize(
    ("name", "loss"), [("apgd-ce", "cross_entropy"), ("apgd-dlr", "difference_logits_ratio")]
)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 6 / 255), ("l2", 0.5)])
def test_it_keeps_the_accuracy_that_art_keeps(toy: Toy, name: str, loss: str, norm: str, eps: float) -> None:
    ours = kept(toy.model, toy, f"{name}:steps=30", eps, norm)
    assert 0.1 < ours < 0.9
    assert abs(ours - kept_by_art(toy, norm, eps, loss, 30)) <= 2 / 64


def kept(model: nn.Module, toy: Toy, spec: str, eps: float, norm: str = "linf") -> float:
    """Robust accuracy at the spec's criterion."""
    record = evaluate(model, toy.images, toy.labels, [spec], [eps], norm).records.iloc[-1]
    assert record.status == "ok"
    return float(record.top5 if "top5" in spec else record.top1)


class Linear(nn.Module):
    """One matrix; the budget that changes an image's class is a sum."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(classes)
        self.weights = nn.Parameter(torch.randn(3 * 6 * 6, classes, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return (images.flatten(1) - 0.5) @ self.weights

    def reach(self, images: Tensor, labels: Tensor, norm: str, eps: float) -> Tensor:
        """The largest margin of each wrong class over the label in the ball, ``(N, C)``; 0 of the label."""
        clean, weights = images.flatten(1), self.weights.detach()
        slope = weights[None] - weights.T[labels][:, :, None]  # (N, pixels, C)
        margin = self(images).detach() - self(images).detach().gather(1, labels[:, None])
        if norm == "l2":
            return margin + eps * slope.norm(dim=1)
        up, down = (1 - clean).clamp(max=eps)[..., None], clean.clamp(max=eps)[..., None]
        return margin + (slope.clamp(min=0) * up - slope.clamp(max=0) * down).sum(dim=1)


def linear_problem(classes: int, count: int = 60) -> tuple[Linear, Toy]:
    """Images that the model classifies right, far from the bounds of the box, so that an l2 ball is whole."""
    model = Linear(classes)
    images = 0.3 + 0.4 * torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return model, Toy(model, images, model(images).argmax(dim=1))


def verdicts(spec: str, toy: Toy, norm: str, eps: float) -> Tensor:
    """Which images are broken."""
    moved = perturb(toy.model, toy.images, toy.labels, spec, eps, norm)
    with torch.no_grad():
        return ~in_top(toy.model(moved), toy.labels, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t"])
def test_of_a_linear_model_it_breaks_all_that_can_be_broken(name: str, classes: int, norm: str) -> None:
    """Images within a hundredth of the edge are left out; an untargeted loss may take the wrong rival."""
    model, toy = linear_problem(classes)
    eps = {"linf": 0.01, "l2": 0.08}[norm] * 2 / classes**0.5
    reach = model.reach(toy.images, toy.labels, norm, eps)
    rivals = reach.scatter(1, toy.labels[:, None], -torch.inf).amax(dim=1)
    clear = rivals.abs() > 0.01
    success = verdicts(f"{name}:steps=30", toy, norm, eps)
    assert 0.1 < (rivals > 0).float().mean() < 0.9
    assert not (success & (rivals < 0) & clear).any()
    missed = int((~success & (rivals > 0) & clear).sum())
    assert missed <= (0 if classes == 2 else {"apgd-ce": 8, "apgd-dlr": 2, "apgd-t": 0}[name])


def test_the_published_schedule_of_a_hundred_steps(toy: Toy) -> None:
    """If nothing rises, every checkpoint halves the step, so the checkpoints become visible."""

    class Flat(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :TOY_CLASSES] * 0

    flat = Toy(Flat(), toy.images[:2], toy.labels[:2])
    attack = parse_attack("apgd-ce")
    assert isinstance(attack, APGD)
    halvings = []
    with AttackedModel(flat.model) as attacked:
        search = ascent(attack, attacked, flat, "linf", 0.1, flat.images)
        for question in range(101):
            before = search.step_size
            search.move(search.ask(attacked))
            if not torch.equal(search.step_size, before):
                halvings.append(question)
    assert halvings == [22, 41, 57, 70, 80, 87, 93, 99]
    assert torch.equal(search.step_size, torch.full((2,), 0.2 / 2**8))


@EVERY_NAME
def test_rows_that_start_later_keep_their_own_schedule(toy: Toy, name: str) -> None:
    attack = parse_attack(with_settings(name, "steps=20"))
    assert isinstance(attack, APGD)
    start = draw_starts(toy, "linf", 0.02).clamp(0, 1)
    parts = [Toy(toy.model, toy.images[rows], toy.labels[rows]) for rows in (slice(0, 5), slice(5, 12))]
    with AttackedModel(toy.model) as attacked:
        first = ascent(attack, attacked, parts[0], "linf", 0.02, start[:5])
        late = ascent(attack, attacked, parts[1], "linf", 0.02, start[5:12])
        together = climb(attacked, first, questions=7)
        together.extend(late)
        climb(attacked, together, questions=14)
        assert together.queries_left.tolist() == [0] * 5 + [7] * 7
        left_over = together.queries_left > 0
        early = together.best_loss[:5]
        together.keep(left_over)
        climb(attacked, together)
    expected = climbed(with_settings(name, "steps=20"), toy, "linf", 0.02, start)
    assert torch.allclose(torch.cat([early, together.best_loss]), expected.best_loss[:12], rtol=1e-3)


@EVERY_NAME
def test_the_result_is_the_worst_point_it_saw(toy: Toy, name: str) -> None:
    attack = parse_attack(with_settings(name, "criterion=none,steps=12"))
    assert isinstance(attack, APGD)
    points, losses, breaks = [], [], []
    with AttackedModel(toy.model) as attacked:
        search = ascent(attack, attacked, toy, "linf", 0.015, draw_starts(toy, "linf", 0.015).clamp(0, 1))
        while bool((search.queries_left > 0).any()):
            answer = search.ask(attacked)
            points.append(search.points)
            losses.append(answer.losses)
            breaks.append(~in_top(answer.logits, toy.labels, 1))
            search.move(answer)
    success, loss = torch.stack(breaks), torch.stack(losses)  # (13, N)
    ever = success.any(dim=0)
    assert 0 < ever.sum() < 64
    chosen = loss.masked_fill(ever & ~success, -torch.inf).argmax(dim=0)
    assert torch.equal(search.result(), torch.stack(points)[chosen, torch.arange(64)])


@EVERY_THREAT
def test_starts_lie_on_the_rim_of_the_ball(norm: str, eps: float) -> None:
    images = 0.4 + 0.2 * torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    ball = ThreatModel(norm, eps).ball(images)
    starts = random_boundary_points(ball, torch.Generator().manual_seed(1))
    assert torch.allclose(ball.distance(starts), torch.full((20,), eps, dtype=torch.float64), rtol=1e-4)
    assert ball.contains(starts).all()
    assert len(starts.unique(dim=0)) == 20


@pytest.mark.parametrize(("spec", "passes"), [("apgd-ce", 101), ("apgd-dlr:restarts=2,steps=9", 20)])
def test_an_image_that_survives_takes_a_gradient_a_step_and_one_for_each_start(
    toy: Toy, spec: str, passes: int
) -> None:
    images, labels = toy.images[:16], toy.model(toy.images[:16]).argmax(dim=1)
    labels[:4] = (labels[:4] + 1) % TOY_CLASSES
    record = evaluate(toy.model, images, labels, [spec], [1e-6], search="exact").records.iloc[-1]
    assert record.top1 == 12 / 16
    assert (record.forward_passes, record.backward_passes) == (12 * passes, 12 * passes)
    assert parse_attack(spec).gradients(1) == passes


def test_a_broken_image_takes_no_more(toy: Toy) -> None:
    """From within a ball this large every start breaks at once or after few steps."""
    record = evaluate(toy.model, toy.images, toy.labels, ["apgd-ce"], [0.3], search="exact").records.iloc[-1]
    assert record.top1 == 0
    assert record.backward_passes < 64 * 10


@EVERY_NAME
def test_images_all_wrong_already_are_not_attacked(toy: Toy, name: str) -> None:
    wrong = toy.model(toy.images).argmin(dim=1)
    record = evaluate(toy.model, toy.images, wrong, [name], [0.01]).records.iloc[-1]
    assert (record.status, record.top1, record.backward_passes) == ("ok", 0.0, 0)


@EVERY_NAME
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_image(toy: Toy, name: str, norm: str) -> None:
    moved = perturb(toy.model, toy.images[:1], toy.labels[:1], name, 0.5, norm)
    with torch.no_grad():
        assert not in_top(toy.model(moved), toy.labels[:1], 1)


@EVERY_NAME
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_no_scale_of_the_logits_hides_an_image_from_the_ratio(toy: Toy, name: str, scale: float) -> None:
    """It does from cross-entropy, whose gradient vanishes if a model is confident enough."""

    class Scaled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return toy.model(images) * scale

    spec = with_settings(name, "steps=10")
    plain, scaled = kept(toy.model, toy, spec, 0.02), kept(Scaled(), toy, spec, 0.02)
    if name == "apgd-ce" and scale > 1:
        assert scaled > plain + 4 / 64
    elif name != "apgd-ce":
        assert abs(scaled - plain) <= 1 / 64


def test_a_target_is_a_wrong_class_by_its_clean_rank() -> None:
    model, toy = linear_problem(200, count=4)
    stages = parse_attack("apgd-t:restarts=2,targets=3").stages(200)
    assert [stage.spec for stage in stages] == [f"apgd-t:target={rank}" for rank in (1, 1, 2, 2, 3, 3)]
    assert len(parse_attack("apgd-t").stages(200)) == 9
    assert [len(parse_attack("apgd-t").stages(classes)) for classes in (2, 4, 10)] == [1, 3, 9]
    assert len(parse_attack("apgd-t:criterion=top5").stages(10)) == 5
    attack = parse_attack("apgd-t:target=7")
    assert isinstance(attack, APGD)
    inputs = AttackInputs(
        toy.labels,
        ThreatModel("linf", 0.1).ball(toy.images),
        model(toy.images),
        attack.goal,
        torch.Generator(),
    )
    assert torch.equal(
        attack.aims(inputs).squeeze(1), model(toy.images).argsort(dim=1, descending=True)[:, 7]
    )


def test_two_hundred_classes_take_nine_targets() -> None:
    model, toy = linear_problem(200, count=6)
    record = evaluate(model, toy.images, toy.labels, ["apgd-t:steps=4"], [1e-6], search="exact").records.iloc[
        -1
    ]
    assert (record.top1, record.backward_passes) == (1.0, 6 * 9 * 5)


def test_a_target_that_there_is_not_is_the_users_mistake(toy: Toy) -> None:
    with pytest.raises(InvalidSettingError, match="target=10 with 10 classes; expected 9 or less"):
        perturb(toy.model, toy.images, toy.labels, "apgd-t:target=10", 0.01)


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t"])
def test_the_worst_top_5_is_measured_when_asked_for(toy: Toy, name: str) -> None:
    spec = f"{name}:criterion=top5,steps=8"
    record = evaluate(toy.model, toy.images, toy.labels, [spec], [0.06]).records.iloc[-1]
    moved = perturb(toy.model, toy.images, toy.labels, spec, 0.06)
    assert record.status == "ok"
    assert np.isnan(record.top1)
    with torch.no_grad():
        assert record.top5 == in_top(toy.model(moved), toy.labels, 5).float().mean()
    assert kept(toy.model, toy, f"{name}:steps=8", 0.06) < record.top5 < 0.9


@pytest.mark.parametrize(
    ("spec", "enough"),
    [("apgd-dlr", 3), ("apgd-t", 4), ("apgd-dlr:criterion=top5", 7), ("apgd-t:criterion=top5", 8)],
)
def test_with_too_few_classes_for_the_ratio_the_record_says_so(spec: str, enough: int) -> None:
    attack = parse_attack(spec)
    assert not attack.remarks(enough)
    (remark,) = attack.remarks(enough - 1)
    assert f"cross-entropy stands in for DLR, which needs {enough} classes" in remark
    model, toy = linear_problem(enough - 1, count=8)
    record = evaluate(model, toy.images, toy.labels, [with_settings(spec, "steps=3")], [0.2]).records.iloc[-1]
    assert record.status == "ok"
    assert remark in record.remarks


def test_one_class_can_not_be_mistaken() -> None:
    model, toy = linear_problem(1, count=2)
    with pytest.raises(InvalidSettingError, match="no attack can succeed"):
        perturb(model, toy.images, toy.labels, "apgd-t", 0.1)


def test_passes_are_averaged_where_the_attack_says_so(toy: Toy) -> None:
    images, labels = toy.images[:4], toy.model(toy.images[:4]).argmax(dim=1)
    for eot, settings in ((1, "steps=2"), (3, "steps=2,eot=3")):
        record = evaluate(
            toy.model, images, labels, [f"apgd-ce:{settings}"], [1e-6], search="exact"
        ).records.iloc[-1]
        assert record.backward_passes == 4 * 3 * eot
    record = evaluate(
        toy.model, images, labels, ["apgd-ce:steps=2"], [1e-6], search="exact", eot=2
    ).records.iloc[-1]
    assert record.backward_passes == 4 * 3 * 2


def test_of_several_starts_and_targets_the_worst_counts_at_the_fixed_budget(toy: Toy) -> None:
    specs = [f"apgd-t:criterion=none,steps=4,targets={targets}" for targets in (1, 4)]
    one, four = (
        (~in_top(toy.model(perturb(toy.model, toy.images, toy.labels, spec, 0.012)), toy.labels, 1))
        for spec in specs
    )
    assert not (one & ~four).any()
    record = evaluate(toy.model, toy.images, toy.labels, [specs[0]], [0.012]).records.iloc[-1]
    assert record["mode"] == "fixed budget"
    assert record.top1 == 1 - one.float().mean()
    assert record.top5 <= 1


@pytest.mark.parametrize(
    "setting", ["steps=0", "restarts=0", "targets=0", "target=0", "eot=0", "criterion=top3"]
)
def test_settings_out_of_range_are_refused_by_name(setting: str) -> None:
    with pytest.raises(InvalidSettingError, match=rf"attack 'apgd-t' got {setting.partition('=')[0]}="):
        parse_attack(f"apgd-t:{setting}")
