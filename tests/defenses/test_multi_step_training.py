"""PGD training, TRADES and MART against their formulas, written down a second time."""

from __future__ import annotations

import pytest
import torch
from defense_toys import Fed, build_normalised_model, context_of
from torch import Tensor, nn
from torch.nn import functional
from toys import Toy, build_toy_model

from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import ThreatModel

MULTI_STEP = pytest.mark.parametrize("name", ["pgd-at", "trades", "mart"])
NORM = pytest.mark.parametrize("norm", ["linf", "l2"])


def kl(p_log: Tensor, q_log: Tensor) -> Tensor:
    """The sum of p (log p - log q) over each row."""
    return torch.sum(torch.exp(p_log) * (p_log - q_log), dim=1)


def climbed(model, images, start, loss, eps, alpha, steps, norm) -> Tensor:
    """Normalised steps on the change, cut to the ball and the box, each image by itself."""
    point = start.clone()
    for _ in range(steps):
        point.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(model(point)), point)
        moved = []
        for image, now, slope in zip(images, point.detach(), gradient, strict=True):
            if norm == "linf":
                change = (now + alpha * torch.sign(slope) - image).clamp(-eps, eps)
                moved.append((image + change).clamp(0, 1))
            else:
                change = (now + alpha * slope / slope.norm()).clamp(0, 1) - image
                moved.append(image + change * min(1.0, eps / float(change.norm())))
        point = torch.stack(moved)
    return point


def trades_by_hand(model: nn.Module, images, adversarial, labels, beta) -> Tensor:
    clean, moved = model(images), model(adversarial)
    return functional.cross_entropy(clean, labels) + beta * torch.mean(
        kl(torch.log_softmax(clean, 1), torch.log_softmax(moved, 1))
    )


def mart_by_hand(model: nn.Module, images, adversarial, labels, beta) -> Tensor:
    clean, moved = torch.softmax(model(images), 1), torch.softmax(model(adversarial), 1)
    total = torch.zeros(())
    for p, q, label in zip(clean, moved, labels, strict=True):
        others = torch.cat([q[:label], q[label + 1 :]])
        boosted = -torch.log(q[label]) - torch.log(1.0001 - others.max())
        divergence = torch.sum(p * torch.log(p / q))
        total = total + boosted + beta * divergence * (1 - p[label])
    return total / len(labels)


def assert_same_gradients(model: nn.Module, loss: Tensor, by_hand: nn.Module, expected: Tensor) -> None:
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    model.zero_grad()
    by_hand.zero_grad()
    loss.backward()
    expected.backward()
    for weight, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(weight.grad, other.grad, rtol=1e-3, atol=1e-4)


@NORM
def test_pgd_training_is_cross_entropy_where_pgd_ends(toy: Toy, norm: str) -> None:
    eps, alpha = (8 / 255, 2 / 255) if norm == "linf" else (0.5, 2 * 0.5 / 7)
    model, by_hand = build_toy_model(), build_toy_model()
    loss = parse_defense(f"pgd-at:eps={eps},norm={norm}").loss(model, toy.images, toy.labels, context_of(4))
    start = ThreatModel(norm, eps).ball(toy.images).random(torch.Generator().manual_seed(4))

    def cross_entropy(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits, toy.labels)

    moved = climbed(by_hand, toy.images, start, cross_entropy, eps, alpha, 7, norm)
    assert_same_gradients(model, loss, by_hand, cross_entropy(by_hand(moved)))


@NORM
def test_trades_is_its_formula_where_its_search_ends(toy: Toy, norm: str) -> None:
    eps, alpha = (8 / 255, 2 / 255) if norm == "linf" else (0.5, 0.1)
    model, by_hand = build_toy_model(), build_toy_model()
    loss = parse_defense(f"trades:eps={eps},norm={norm}").loss(model, toy.images, toy.labels, context_of(4))
    noise = torch.randn(toy.images.shape, generator=torch.Generator().manual_seed(4))
    clean = torch.log_softmax(by_hand(toy.images), 1).detach()
    moved = climbed(
        by_hand,
        toy.images,
        toy.images + 0.001 * noise,
        lambda logits: kl(clean, torch.log_softmax(logits, 1)).sum(),
        eps,
        alpha,
        10,
        norm,
    )
    expected = trades_by_hand(by_hand, toy.images, moved, toy.labels, 6.0)
    assert_same_gradients(model, loss, by_hand, expected)


@NORM
def test_mart_is_its_formula_where_its_search_ends(toy: Toy, norm: str) -> None:
    eps, alpha = (8 / 255, 2 / 255) if norm == "linf" else (0.5, 0.1)
    model, by_hand = build_toy_model(), build_toy_model()
    loss = parse_defense(f"mart:eps={eps},norm={norm}").loss(model, toy.images, toy.labels, context_of(4))
    noise = torch.randn(toy.images.shape, generator=torch.Generator().manual_seed(4))
    moved = climbed(
        by_hand,
        toy.images,
        toy.images + 0.001 * noise,
        lambda logits: functional.cross_entropy(logits, toy.labels),
        eps,
        alpha,
        10,
        norm,
    )
    expected = mart_by_hand(by_hand, toy.images, moved, toy.labels, 5.0)
    assert_same_gradients(model, loss, by_hand, expected)


def test_the_weight_of_trades_is_its_own(toy: Toy) -> None:
    def of(beta: float) -> float:
        defense = parse_defense(f"trades:beta={beta}")
        return defense.loss(toy.model, toy.images, toy.labels, context_of(1)).item()

    plain = functional.cross_entropy(toy.model(toy.images), toy.labels).item()
    assert of(0) == pytest.approx(plain, rel=1e-5)
    assert of(12) - plain == pytest.approx(2 * (of(6) - plain), rel=1e-4)
    assert of(6) > 2 * plain


@MULTI_STEP
@NORM
def test_what_the_network_is_trained_on_stays_in_the_ball_and_the_box(toy: Toy, name: str, norm: str) -> None:
    images = toy.images.clone()
    images[:4], images[4:8] = 0, 1
    model = Fed(build_toy_model())
    defense = parse_defense(f"{name}:eps=0.3,steps=5,norm={norm}")
    defense.loss(model, images, toy.labels, context_of(0))
    adversarial = model.shown[-1]
    assert bool(ThreatModel(norm, 0.3).ball(images).contains(adversarial).all())
    assert float(ThreatModel(norm, 0.3).ball(images).distance(adversarial).max()) > 0.25


@pytest.mark.parametrize(
    ("spec", "modes"),
    [
        ("pgd-at:steps=2", [True] * 3),
        ("fgsm-at", [True] * 2),
        ("n-fgsm", [True] * 2),
        ("free-at", [True]),
        ("trades:steps=2", [False] * 3 + [True] * 2),
        ("mart:steps=2", [False] * 2 + [True] * 2),
    ],
)
def test_images_are_made_in_the_mode_of_the_papers_code(toy: Toy, spec: str, modes: list[bool]) -> None:
    model = Fed(build_normalised_model().train())
    parse_defense(spec).loss(model, toy.images, toy.labels, context_of(0)).backward()
    assert model.modes == modes
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["trades", "mart"])
def test_a_search_in_eval_mode_leaves_the_statistics_to_the_loss(toy: Toy, name: str) -> None:
    model = build_normalised_model().train()
    defense = parse_defense(f"{name}:steps=3")
    objective = defense.objective(model, toy.images, toy.labels, context_of(0))
    assert int(model[1].num_batches_tracked) == 0
    objective()
    assert int(model[1].num_batches_tracked) == 2


@pytest.mark.parametrize("spec", ["fgsm-at", "n-fgsm", "pgd-at:steps=3", "trades:steps=3", "mart:steps=3"])
def test_asking_again_makes_no_new_images(toy: Toy, spec: str) -> None:
    model = Fed(build_toy_model())
    objective = parse_defense(spec).objective(model, toy.images, toy.labels, context_of(0))
    made = len(model.shown)
    one = objective()
    asked = len(model.shown) - made
    assert objective().item() == one.item()
    assert len(model.shown) == made + 2 * asked
    assert asked <= 2


@pytest.mark.parametrize(
    "spec", ["none", "fgsm-at", "free-at", "pgd-at:steps=2", "trades:steps=2", "mart:steps=2"]
)
def test_label_smoothing_reaches_what_the_weights_learn_and_not_the_images(toy: Toy, spec: str) -> None:
    plain, smooth = Fed(build_toy_model()), Fed(build_toy_model())
    defense = parse_defense(spec)
    hard = defense.loss(plain, toy.images, toy.labels, context_of(2))
    soft = defense.loss(smooth, toy.images, toy.labels, context_of(2, label_smoothing=0.2))
    assert all(torch.equal(one, other) for one, other in zip(plain.shown, smooth.shown, strict=True))
    # TRADES learns the labels on clean images, the others on adversarial ones, all of them once.
    learned = smooth.shown[-2] if spec.startswith("trades") else smooth.shown[-1]
    logits = smooth.inner(learned)
    uniform = -torch.log_softmax(logits, 1).mean()
    one_hot = functional.cross_entropy(logits, toy.labels)
    assert (soft - hard).item() == pytest.approx(0.2 * (uniform - one_hot).item(), rel=1e-3)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("pgd-at:steps=0", "got steps=0; expected 1 or more"),
        ("pgd-at:norm=l1", "got norm=l1; expected linf or l2"),
        ("trades:beta=-1", "got beta=-1.0; expected 0 or more"),
        ("mart:beta=nan", "beta"),
        ("trades:eps=0", "eps"),
        ("pgd-at:alpha=0", "alpha"),
        ("n-fgsm:noise=-1", "noise"),
        ("free-at:replays=0", "got replays=0; expected 1 or more"),
        ("awp:gamma=0", "gamma"),
        ("awp:warmup=-1", "warmup"),
        ("pgd-at+trades", "'pgd-at' and 'trades' each define the training loss"),
        ("free-at+mart", "'free-at' and 'mart' each define the training loss"),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(spec: str, reason: str) -> None:
    with pytest.raises(InvalidSettingError, match=reason) as caught:
        parse_defense(spec)
    assert "\n" not in str(caught.value)
