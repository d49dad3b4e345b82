"""Square: its schedule, its squares, its verdicts beside those of torchattacks and ART.

torchattacks 3.5.1 holds a copy of the reference code. It draws one square for the whole batch; here each
image has its own. So its accuracy varies more from seed to seed. It also makes one query more than asked.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from toys import TOY_CLASSES, Toy

from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.attacks.engine.state import AttackInputs
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopRunner
from robustbench_tin.attacks.square import (
    Square,
    SquareWindows,
    _pattern,
    _Squares,
    first_stripes,
    first_tiles,
)
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import ThreatModel

EPS = {"linf": 0.04, "l2": 1.2}
BOTH_NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


def begun(toy: Toy, norm: str, queries: int, *, criterion: int = 1, rows: int = 64) -> _Squares:
    images, labels = toy.images[:rows], toy.labels[:rows]
    ball = ThreatModel(norm, EPS[norm]).ball(images)
    inputs = AttackInputs(labels, ball, images.new_empty(rows, 0), Criterion(criterion), torch.Generator())
    search = Square(queries=queries).begin(inputs)
    assert isinstance(search, _Squares)
    return search


def published_share(asked: int, queries: int, p: float) -> float:
    """The reference's table of shares, after ``asked`` proposals."""
    until = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    scaled = int(asked / queries * 10_000)
    for halvings, last in enumerate(until):
        if scaled <= last:
            return p / 2**halvings
    return p / 2**9


@pytest.mark.parametrize("queries", [1, 20, 1000, 5000, 10_000])
def test_each_row_follows_the_published_schedule_at_its_own_count(toy: Toy, queries: int) -> None:
    search = begun(toy, "linf", queries)
    made = torch.linspace(0, queries - 1, 64).long()
    search.queries_left = queries - made - 1
    expected = [published_share(int(asked), queries, 0.8) for asked in made]
    assert search._shares().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 15, 57])
def test_the_l2_pattern_is_that_of_torchattacks(side: int) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    attack = torchattacks.Square(nn.Conv2d(3, 3, 1))
    with torch.random.fork_rng(devices=[]):
        theirs = attack.eta(side)
    ours = _pattern(side)
    assert torch.allclose(theirs, ours, atol=1e-6) or torch.allclose(theirs, ours.T, atol=1e-6)


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    share=st.floats(1e-4, 1),
    seed=st.integers(0, 1000),
)
def test_a_repainted_window_is_a_square_inside_the_image(
    height: int, width: int, share: float, seed: int
) -> None:
    points = torch.zeros(5, 3, height, width)
    generator = torch.Generator().manual_seed(seed)
    moved = SquareWindows(points, torch.full((5,), share), generator).repainted(points, 0.25)
    side = min(max(round(math.sqrt(share * height * width)), 1), height, width)
    assert set(moved.unique().tolist()) <= {-0.25, 0.0, 0.25}
    for image in moved:
        inside = image[0] != 0
        rows, columns = inside.any(dim=1).nonzero(), inside.any(dim=0).nonzero()
        assert len(rows) == len(columns) == side
        assert inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
        assert inside.sum() == side**2
        for channel in image:
            assert len(channel[inside].unique()) == 1


@given(height=st.integers(1, 20), width=st.integers(1, 20))
def test_the_first_tiles_have_length_one(height: int, width: int) -> None:
    tiles = first_tiles(torch.zeros(5, 3, height, width), torch.Generator())
    assert torch.allclose(tiles.flatten(1).norm(dim=1), torch.ones(5), atol=1e-5)


@given(
    height=st.integers(3, 20),
    width=st.integers(3, 20),
    share=st.floats(1e-4, 1),
    seed=st.integers(0, 1000),
    spent=st.floats(0.1, 1),
)
def test_rebuilding_l2_windows_spends_the_whole_length(
    height: int, width: int, share: float, seed: int, spent: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    changes = torch.randn(5, 3, height, width, generator=generator)
    changes = spent * changes / changes.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    shares = torch.linspace(share / 20, share, 5)
    rebuilt = SquareWindows(changes, shares, generator).rebuilt(changes, 1.0)
    assert torch.allclose(rebuilt.flatten(1).norm(dim=1), torch.ones(5), atol=1e-4)
    untouched = rebuilt == changes
    emptied = (rebuilt == 0) & ~untouched
    for image_untouched, image_emptied, image_share in zip(untouched, emptied, shares, strict=True):
        side = round(math.sqrt(float(image_share) * height * width))
        side = min(max(side + (side % 2 == 0), 3), height, width)
        written = ~image_untouched & ~image_emptied
        assert written.sum() == 3 * side**2
        assert image_emptied.sum() <= 3 * side**2


def test_windows_lie_everywhere_up_to_the_edges() -> None:
    points = torch.zeros(2000, 3, 6, 6)
    moved = SquareWindows(points, torch.full((2000,), 1e-9), torch.Generator()).repainted(points, 1.0)
    hits = (moved[:, 0] != 0).sum(dim=0)
    assert hits.sum() == 2000
    assert hits.min() > 30
    assert hits.max() < 90


def test_the_first_stripes_are_vertical_and_one_pixel_wide() -> None:
    stripes = first_stripes(torch.zeros(3, 3, 8, 40), torch.Generator())
    assert (stripes == stripes[:, :, :1]).all()
    assert (stripes.abs() == 1).all()
    assert (stripes[..., 1:] != stripes[..., :-1]).float().mean() == pytest.approx(0.5, abs=0.1)


@BOTH_NORMS
@pytest.mark.parametrize("k", [1, 5])
def test_the_margin_never_gets_better_for_the_model(toy: Toy, norm: str, k: int) -> None:
    search = begun(toy, norm, 30, criterion=k, rows=16)
    with AttackedModel(toy.model) as attacked:
        before = torch.full((16,), -torch.inf)
        while bool((search.queries_left > 0).any()):
            assert search.inputs.ball.contains(search.points).all()
            search.move(search.ask(attacked))
            assert (search.best_margin >= before).all()
            before = search.best_margin
        margin = Criterion(k).margin(attacked.logits(search.result()), search.inputs.labels)
    assert torch.allclose(margin, search.best_margin, atol=1e-5)


@BOTH_NORMS
@pytest.mark.parametrize("criterion", ["top1", "top5"])
@pytest.mark.parametrize("rows", [5, 64])
def test_what_the_driver_calls_broken_is_broken(toy: Toy, norm: str, criterion: str, rows: int) -> None:
    attack = parse_attack(f"square:criterion={criterion},queries=20")
    images, labels = toy.images[:24], toy.labels[:24]
    threat = ThreatModel(norm, EPS[norm] * (2 if criterion == "top1" else 8))
    with AttackedModel(toy.model) as attacked:
        batches = ImageBatches(images, labels, rows, torch.device("cpu"))
        runner = EarlyStopRunner(attacked, batches, threat, attack.goal, attacked.logits(images))
        result = runner.attack(attack, keep_images=True)
        assert result.images is not None
        assert torch.equal(attack.goal.success(attacked.logits(result.images), labels), result.success)
    assert threat.ball(images).contains(result.images).all()
    assert result.success.any()


def kept(toy: Toy, images: Tensor) -> float:
    with torch.no_grad():
        return float((toy.model(images).argmax(dim=1) == toy.labels).float().mean())


def ours(toy: Toy, norm: str, queries: int, seeds: int) -> list[float]:
    attack = parse_attack(f"square:queries={queries}")
    with AttackedModel(toy.model) as attacked:
        return [
            kept(
                toy,
                perturb_images(attack, attacked, toy.images, toy.labels, [EPS[norm]], norm=norm, seed=seed)[
                    0
                ],
            )
            for seed in range(seeds)
        ]


@BOTH_NORMS
def test_it_keeps_the_accuracy_that_torchattacks_keeps(toy: Toy, norm: str) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    theirs = []
    for seed in range(4):
        with torch.random.fork_rng(devices=[]):
            attack = torchattacks.Square(
                toy.model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=EPS[norm], n_queries=50, seed=seed
            )
            theirs.append(kept(toy, attack(toy.images, toy.labels)))
    mean = np.mean(ours(toy, norm, 51, 4))
    assert 0.2 < mean < 0.98
    # Three standard errors of the difference; theirs is 4 of 64 images a seed, since squares are shared.
    assert abs(mean - np.mean(theirs)) <= 3 * (4 / 64) / math.sqrt(4)


def test_it_keeps_the_accuracy_that_art_keeps(toy: Toy) -> None:
    """Linf only: ART 1.20.1 divides an l2 square by the length that it is to have instead of multiplying."""
    from art.attacks.evasion import SquareAttack
    from art.estimators.classification import PyTorchClassifier

    classifier: Any = PyTorchClassifier(
        toy.model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 16, 16),
        nb_classes=TOY_CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = SquareAttack(classifier, eps=EPS["linf"], max_iter=50, p_init=0.8, batch_size=64, verbose=False)
    theirs = []
    state = np.random.get_state()  # noqa: NPY002 - ART draws from NumPy's global generator
    for seed in range(4):
        np.random.seed(seed)  # noqa: NPY002
        theirs.append(kept(toy, torch.from_numpy(attack.generate(toy.images.numpy(), toy.labels.numpy()))))
    np.random.set_state(state)  # noqa: NPY002
    assert np.mean(theirs) < 1
    # Three standard errors; either varies by 2 of 64 images from seed to seed.
    assert abs(np.mean(ours(toy, "linf", 51, 4)) - np.mean(theirs)) <= 3 * (2 / 64) * math.sqrt(2 / 4)


@BOTH_NORMS
def test_more_restarts_never_spare_an_image(toy: Toy, norm: str) -> None:
    with AttackedModel(toy.model) as attacked:
        margins = []
        for restarts in (1, 3):
            attack = parse_attack(f"square:criterion=none,queries=8,restarts={restarts}")
            moved = perturb_images(attack, attacked, toy.images, toy.labels, [2 * EPS[norm]], norm=norm)[0]
            margins.append(Criterion(1).margin(attacked.logits(moved), toy.labels))
        success = []
        for restarts in (1, 3):
            attack = parse_attack(f"square:queries=8,restarts={restarts}")
            moved = perturb_images(attack, attacked, toy.images, toy.labels, [2 * EPS[norm]], norm=norm)[0]
            success.append(moved.ne(toy.images).flatten(1).any(dim=1))
    assert (margins[1] >= margins[0]).all()
    assert (margins[1] > margins[0]).any()
    assert not (success[0] & ~success[1]).any()
    assert success[1].sum() > success[0].sum()


def test_logits_of_a_lower_precision_hide_what_it_looks_for(toy: Toy) -> None:
    """Why the search is never below float32: in bfloat16, most late improvements round to none."""

    class Coarse(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return toy.model(images).bfloat16().float()

    taken = {}
    for model in (toy.model, Coarse()):
        search = begun(toy, "linf", 200, rows=32)
        count = 0
        with AttackedModel(model) as attacked:
            while bool((search.queries_left > 0).any()):
                before = search.best_margin
                search.move(search.ask(attacked))
                if search.queries_left[0] < 100:
                    count += int((search.best_margin > before).sum())
        taken[model] = count
    exact, coarse = taken.values()
    assert exact > 100
    assert coarse < exact / 2
    assert _Squares.precise


@pytest.mark.parametrize(
    ("spec", "forward"),
    [
        ("square:criterion=none,queries=7", 7),
        ("square:criterion=none,queries=1", 1),
        # Two starts need one pass more each, to tell which was worse.
        ("square:criterion=none,queries=7,restarts=2", 16),
    ],
)
@BOTH_NORMS
def test_passes_are_the_queries(toy: Toy, spec: str, forward: int, norm: str) -> None:
    with AttackedModel(toy.model) as attacked:
        perturb_images(parse_attack(spec), attacked, toy.images[:5], toy.labels[:5], [0.01], norm=norm)
    assert (attacked.forward_passes, attacked.backward_passes) == (5 * forward, 0)


def test_a_survivor_costs_its_queries_and_its_clean_pass(toy: Toy) -> None:
    with AttackedModel(toy.model) as attacked:
        perturb_images(
            parse_attack("square:queries=9,restarts=2"), attacked, toy.images[:1], toy.labels[:1], [1e-6]
        )
    assert (attacked.forward_passes, attacked.backward_passes) == (1 + 2 * 9, 0)


@pytest.mark.parametrize("setting", ["queries=0", "restarts=0", "p=0", "p=1.1", "p=nan"])
def test_settings_out_of_range_are_refused_by_name(setting: str) -> None:
    with pytest.raises(InvalidSettingError, match=rf"attack 'square' got {setting.partition('=')[0]}="):
        parse_attack(f"square:{setting}")
