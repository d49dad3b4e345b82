"""Trust checks: every planted fault is flagged, and no honest model is."""

from __future__ import annotations

import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch
from faults import FAULTS, Fault, toy_host
from faults.batch import beside_the_first, centred
from faults.figures import measure
from faults.no_gradient import quantised
from faults.parts import Before
from faults.randomness import noisy
from faults.wrong_gradient import wrong_sign
from torch import Tensor, nn
from torch.nn import functional
from toys import Toy, build_toy_model, draw_toy_images

from robustbench_tin import bench, evaluate
from robustbench_tin.attacks import Attack, AttackedModel, Ball
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.codes.status import Status, StatusCode
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.trust.probe import IMAGES, PASSES, ProbeResult, gather
from robustbench_tin.progress import LinesReporter
from robustbench_tin.threat import ThreatModel

HONEST_ATTACKS = "fgsm,pgd,pgd:criterion=top1,noise"
EPS = {"linf": (0.0, 0.01, 0.03), "l2": (0.0, 0.15, 0.5)}


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    """As files hold them."""
    drawn, labels = draw_toy_images(160, seed=2)
    return (drawn * 255).round() / 255, labels


@cache
def honest(seed: int, training_eps: float) -> nn.Module:
    """A toy trained plainly, or on images of three steps of PGD."""
    model = build_toy_model(seed)
    images, labels = draw_toy_images(160, seed=100 + seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        moved = images
        ball = ThreatModel("linf", training_eps).ball(images)
        for step in range(3 if training_eps > 0 else 0):
            moved = (ball.random(generator) if step == 0 else moved).requires_grad_()
            (gradient,) = torch.autograd.grad(functional.cross_entropy(model(moved), labels), moved)
            moved = ball.project(moved.detach() + training_eps / 2 * gradient.sign())
        optimizer.zero_grad()
        functional.cross_entropy(model(moved), labels).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=str)
def test_a_planted_fault_is_flagged(images: tuple[Tensor, Tensor], fault: Fault) -> None:
    few = [values[:80] for values in images]
    figures = measure(fault, fault.plant(toy_host()), *few, trust=True)
    assert figures.flagged
    assert fault.says in figures.verdict
    if fault.clean:
        assert fault.says in figures.clean_verdict


@pytest.mark.parametrize("change", [centred, beside_the_first])
def test_a_figure_of_one_image_a_batch_depends_on_the_batch_too(
    toy: Toy, images: tuple[Tensor, Tensor], change
) -> None:
    model = Before(toy.model, change)
    frame = evaluate(model, *images, "fgsm", 0.01, batch_size=1, trust=True).records
    assert frame["above_chance"].all()
    assert frame["trust"].str.contains("other images of their batch").all()


def test_a_random_model_is_not_said_to_remember_or_to_look_beside(
    toy: Toy, images: tuple[Tensor, Tensor]
) -> None:
    for change in (noisy, lambda images: functional.dropout(images, 0.1, training=True)):
        frame = evaluate(Before(toy.model, change), *images, "fgsm", 0.01, trust=True).records
        assert pd.isna(frame["trust"].iloc[0])
        assert frame["trust"].iloc[1].count(";") == 0
        assert "eot=20" in frame["trust"].iloc[1]


def in_place(images: Tensor) -> Tensor:
    return images.sub_(0.5).mul_(2).add_(0.5).clamp_(-1, 2)


def out_of_place(images: Tensor) -> Tensor:
    return (2 * (images - 0.5) + 0.5).clamp(-1, 2)


def test_a_model_that_writes_into_its_images_is_judged_as_the_same_that_does_not(
    toy: Toy, images: tuple[Tensor, Tensor]
) -> None:
    frames = [
        evaluate(
            Before(toy.model, change),
            images[0].clone(),
            images[1],
            "fgsm,pgd,square:queries=20",
            (0.01, 0.03),
            trust=True,
        ).records.drop(columns="seconds")
        for change in (in_place, out_of_place)
    ]
    pd.testing.assert_frame_equal(*frames)
    assert (frames[0]["trust"].dropna() == "ok").all()


def test_threads_get_the_verdicts_that_each_gets_alone(toy: Toy, images: tuple[Tensor, Tensor]) -> None:
    models = [toy.model, Before(toy.model, noisy), Before(toy.model, centred), toy.model]

    def judged(model: nn.Module) -> pd.DataFrame:
        return evaluate(model, *images, "fgsm,pgd:steps=5", 0.02, trust=True).records.drop(columns="seconds")

    alone = [judged(model) for model in models]
    with ThreadPoolExecutor(4) as threads:
        for one, other in zip(alone, threads.map(judged, models), strict=True):
            pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("training_eps", [0.0, 0.03])
@pytest.mark.parametrize("seed", range(3))
def test_an_honest_model_is_not_flagged(
    images: tuple[Tensor, Tensor], seed: int, training_eps: float, norm: str
) -> None:
    frame = evaluate(honest(seed, training_eps), *images, HONEST_ATTACKS, EPS[norm], norm, trust=True).records
    attacked = frame[frame["attack"] != "clean"]
    assert len(attacked) == 8
    assert attacked["above_chance"].all()
    assert attacked["trust"].tolist() == ["ok"] * 8


def rippled(images: Tensor) -> Tensor:
    """Differentiable, but so rough that the checks take all their passes."""
    return images + 0.05 * (1000 * images).sin()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("change", [Tensor.clone, wrong_sign, noisy, centred, rippled])
def test_the_probe_costs_no_more_than_it_says(toy: Toy, change, norm: str) -> None:
    images, labels = draw_toy_images(300, seed=4)
    batches = ImageBatches(images, labels, 50, images.device)
    probed = gather(Before(toy.model, change), batches, 1e-4, AttackProtocol(norm))
    passes = probed.forward_passes + probed.backward_passes
    assert 0 < passes <= PASSES * IMAGES
    assert probed.backward_passes <= 26 * IMAGES
    assert len(set(probed.numbers.tolist())) == len(probed.right) == IMAGES


def test_figures_are_the_same_with_and_without_checks(toy: Toy) -> None:
    plain = evaluate(toy.model, toy.images, toy.labels).records
    checked = evaluate(toy.model, toy.images, toy.labels, trust=True).records
    different = ["seconds", "trust", "trust_codes"]
    pd.testing.assert_frame_equal(plain.drop(columns=different), checked.drop(columns=different))
    assert plain["trust"].isna().all()
    assert checked["trust"].isna().tolist() == [True, False, False, False, False]


def test_what_did_not_learn_is_not_checked(toy: Toy) -> None:
    frame = evaluate(build_toy_model(), toy.images, toy.labels, "fgsm", 0.03, trust=True).records
    assert not frame["above_chance"].any()
    assert pd.isna(frame["trust"][0])
    assert frame["trust"][1] == "unchecked: clean accuracy is not above chance"


@pytest.mark.parametrize(
    ("images", "right", "said"),
    [
        (19, 19, "unchecked: too few images: 19, and 20 are needed"),
        (20, 20, "ok"),
        (40, 9, "unchecked: too few clean images are right: 9 of 40, and 10 are needed"),
        (40, 10, "ok"),
        (4, 4, "unchecked: too few images: 4, and 20 are needed"),
    ],
)
def test_a_judgement_needs_images_that_are_right(toy: Toy, images: int, right: int, said: str) -> None:
    pixels, labels = draw_toy_images(images, seed=2)
    with torch.no_grad():
        answers = toy.model(pixels).argmax(dim=1)
    labels = torch.where(torch.arange(images) < right, answers, (answers + 1) % 10)
    # 9 right images of 40 are above chance with a hundred classes, but not with ten.
    model = nn.Sequential(copy.deepcopy(toy.model), nn.ConstantPad1d((0, 90), -100.0))
    frame = evaluate(model, pixels, labels, "fgsm,pgd:steps=5", 0.005, trust=True).records
    assert frame["above_chance"].all()
    assert frame["top1"][0] == right / images
    assert pd.isna(frame["trust"][0])
    assert frame["trust"].tolist()[1:] == [said] * 2


def test_a_reason_to_disbelieve_wins_over_too_few_images(toy: Toy, images: tuple[Tensor, Tensor]) -> None:
    model = Before(toy.model, quantised)
    frame = evaluate(model, images[0][:16], images[1][:16], "pgd", 0.03, trust=True).records
    codes = [reason["code"] for reason in frame["trust_codes"][1]]
    assert (codes[0], codes[-1]) == (TrustCode.dead_gradients, TrustCode.few_images)
    assert frame["trust"][1].endswith("unchecked: too few images: 16, and 20 are needed")


def test_no_figure_and_no_clean_figure_leave_nothing_to_check(
    toy: Toy, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustbench_tin.benchmarks import evaluate as evaluating

    class Picky(nn.Module):
        """Fails on images that an attack has moved."""

        def forward(self, shown: Tensor) -> Tensor:
            if not torch.equal(shown, (shown * 255).round() / 255):
                raise RuntimeError("no such image")
            logits: Tensor = toy.model(shown)
            return logits

    frame = evaluate(Picky(), *images, "pgd", 0.03, trust=True).records
    assert frame["status"].str.startswith("failed").tolist() == [False, True]
    assert frame["trust"].tolist()[1:] == ["unchecked: nothing was measured"]

    failed = Status.of(StatusCode.failed, why="out of luck")

    def failing(*args: object, **options: object) -> tuple[Measurement, None]:
        return Measurement(0.0, None, None, failed, 0.0, 0, 0), None

    monkeypatch.setattr(evaluating, "measure_clean", failing)
    frame = evaluate(toy.model, *images, "pgd", 0.03, trust=True).records
    assert frame["status"].tolist() == ["failed: out of luck", "ok"]
    assert frame["trust"].fillna("none").tolist() == ["none", "unchecked: the clean measurement failed"]


def test_averaged_gradients_answer_the_doubt_of_a_random_model(toy: Toy) -> None:
    model = Before(toy.model, noisy)
    frame = evaluate(model, toy.images, toy.labels, "pgd:steps=5", 0.03, eot=4, trust=True).records
    assert frame["trust"].tolist()[1:] == ["ok"]


def test_a_model_that_fails_the_checks_is_not_trusted(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench_tin.benchmarks.trust import judge as trust

    def fail(*args: object) -> None:
        raise RuntimeError("two lines\nof trouble")

    monkeypatch.setattr(trust, "gather", fail)
    frame = evaluate(toy.model, toy.images, toy.labels, "fgsm", 0.03, trust=True).records
    assert frame["trust"].iloc[1] == "the checks failed: RuntimeError: two lines of trouble"


def test_a_fixed_budget_is_doubted_where_the_probe_was_not_through(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustbench_tin.benchmarks.trust import judge as trust

    def slow(*args: object) -> ProbeResult:
        return dataclasses.replace(gather(*args), late_successes=30)

    monkeypatch.setattr(trust, "gather", slow)
    attacks = ["pgd", "pgd:steps=30", "pgd:criterion=top1"]
    frame = evaluate(toy.model, toy.images, toy.labels, attacks, (0.01, 0.03), trust=True).records
    doubted = frame[frame["trust"].str.contains("in its last step", na=False)]
    assert list(zip(doubted["attack"], doubted["eps"], strict=True)) == [("pgd", 0.03)]


def shown(run: Run) -> tuple[pd.DataFrame, str]:
    records = run.records.drop(columns=["seconds", "train_seconds"])
    return records, (run.path / "results.md").read_text()


def test_a_bench_judges_each_cell_apart_from_its_measures(small: dict, tmp_path: Path) -> None:
    listener = LinesReporter()
    small |= {"attacks": "fgsm,pgd:criterion=top1", "eps": "0.03", "worst_case": True}
    checked = bench(**{**small, "trust": True}, reporter=listener).records
    plain = bench(**{**small, "out": tmp_path / "plain"}).records
    assert plain["trust"].isna().all()
    assert checked["trust"].notna().tolist() == [False, True, True, True]
    for column in ("top1", "forward_passes", "backward_passes", "late_successes", "unverified"):
        pd.testing.assert_series_equal(plain[column], checked[column])
    assert any("trust checks" in line and "passes" in line for line in listener.lines)


BROKEN_ATTACK = """
from dataclasses import dataclass
from robustbench_tin import attacks

@attacks.register("out-of-luck")
@dataclass(frozen=True, kw_only=True)
class OutOfLuck(attacks.Attack):
    def run(self, attacked, labels, ball, generator):
        raise RuntimeError("out of luck")
"""


def test_no_figure_of_a_bench_is_left_without_a_verdict(small: dict, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(BROKEN_ATTACK)
    run = bench(**{**small, "attacks": "fgsm,out-of-luck", "eps": "0.03", "trust": True}, plugins=[plugin])
    assert run.records["trust"].fillna("").tolist() == ["", "ok", "unchecked: nothing was measured"]


def test_a_run_of_what_did_not_learn_says_that_it_is_unchecked(small: dict) -> None:
    listener = LinesReporter()
    small |= {"trust": True, "eps": "0.01,0.03", "epochs": 1, "lr": 1e-9, "worst_case": True}
    run = bench(**small, reporter=listener)
    unchecked = "unchecked: clean accuracy is not above chance"
    assert run.records["trust"].fillna("").tolist() == ["", *[unchecked] * 6]
    assert [line for line in listener.lines if "unchecked" in line] == [
        f"timm:test_resnet + none, seed 0: {unchecked}"
    ]
    for table in run.tables:
        assert table.notes.count(f"? {unchecked} (timm:test_resnet + none, seed 0)") == 1
        assert sum("?" in text for text in table.rows[0]) == 12  # three attacks, two budgets, top-1 and top-5
    # An earlier version left these blank: such a run is read, and the same command fills them in.
    (cell,) = run.plan.cells()
    for attack, eps in run.measures(cell):
        record = run.record(cell, attack, eps)
        run.save_record(cell, record.model_copy(update={"trust": None}))
    old = Run.load(run.path)
    assert old.records["trust"].isna().all()
    assert not any("?" in text for table in old.tables for row in table.rows for text in row)
    again = bench(**small)
    for mine, theirs in zip(shown(again), shown(run), strict=True):
        assert mine.equals(theirs) if isinstance(mine, pd.DataFrame) else mine == theirs


class Stop(BaseException):
    """Ends a run as a kill would."""


def test_a_run_stopped_while_it_judges_ends_with_the_same_table(
    small: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small |= {"trust": True, "eps": "0.03"}
    undisturbed = bench(**{**small, "out": tmp_path / "undisturbed"})
    calls = 0
    real = Run.save_record

    def stopping(run: Run, cell: object, record: object) -> object:
        nonlocal calls
        calls += record.trust is not None
        if calls == 2:
            raise Stop
        return real(run, cell, record)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_record", stopping)
        with pytest.raises(Stop):
            bench(**small)
    half = Run.load(small["out"]).records
    assert half["trust"].notna().sum() == 1
    resumed = bench(**small)
    for mine, theirs in zip(shown(resumed), shown(undisturbed), strict=True):
        assert mine.equals(theirs) if isinstance(mine, pd.DataFrame) else mine == theirs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unregistered(Attack):
    """A step that is in no registry."""

    name: ClassVar[str] = "nobody-knows-it"

    def run(self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return ball.project(ball.images + ball.eps * attacked.gradient(ball.images, labels).sign())


def test_an_attack_that_no_registry_knows_is_judged(toy: Toy, images: tuple[Tensor, Tensor]) -> None:
    frame = evaluate(toy.model, *images, [Unregistered()], 0.03, trust=True).records
    assert (frame["attack"][1], frame["trust"][1]) == ("nobody-knows-it", "ok")
    # Its figure would be doubted if it were mistaken for the registry's attack of several steps.
    same_name = type("SameName", (Unregistered,), {"name": "pgd"})()
    frame = evaluate(toy.model, *images, [same_name], 0.03, trust=True).records
    assert (frame["attack"][1], frame["trust"][1]) == ("pgd", "ok")
