"""Measuring a model of one's own: the table, the images behind it, and refused input."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import TOY_CLASSES, Toy

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks import AttackedModel
from robustbench_tin.attacks.base import AttackFailure
from robustbench_tin.benchmarks.runs.records import Record, columns
from robustbench_tin.errors import InvalidSettingError, RobustTinError, UnknownNameError
from robustbench_tin.metrics import above_chance, in_top, interval

TIMES = ["seconds"]


def same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return one.drop(columns=TIMES).equals(other.drop(columns=TIMES))


def kept(model: nn.Module, images: Tensor, labels: Tensor, k: int, batch_size: int = 64) -> float:
    with AttackedModel(model) as attacked:
        logits = torch.cat([attacked.logits(batch) for batch in images.split(batch_size)])
    return float(in_top(logits, labels, k).double().mean())


@pytest.fixture
def bytes_of_toy(toy: Toy) -> np.ndarray:
    return (toy.images * 255).round().byte().numpy()


def test_there_is_one_clean_row_and_one_an_attack_and_budget(toy: Toy) -> None:
    frame = evaluate(toy.model, toy.images, toy.labels, "fgsm,pgd:steps=2", "0.03,0,0.01").records
    assert list(frame.columns) == columns(Record)
    assert list(zip(frame.attack, frame.eps, strict=True)) == [
        ("clean", 0.0),
        ("fgsm", 0.01),
        ("fgsm", 0.03),
        ("pgd:steps=2", 0.01),
        ("pgd:steps=2", 0.03),
    ]
    assert set(frame.status) == {"ok"}
    assert set(frame.n) == {64}
    assert set(frame.classes) == {TOY_CLASSES}
    assert set(frame.model) == {"Sequential"}
    assert frame.above_chance.all()
    assert set(frame.image_size) == {16}
    clean = frame.iloc[0]
    assert (clean.forward_passes, clean.backward_passes) == (64, 0)
    # One gradient shared by two budgets, its forward pass the clean measure's; one pass each to measure.
    assert frame.forward_passes.tolist()[1:3] == [64, 64]
    assert frame.backward_passes.tolist() == [0, 32, 32, 128, 128]


def test_the_clean_measure_that_comes_with_the_first_gradients_is_the_clean_measure(toy: Toy) -> None:
    shared = evaluate(toy.model, toy.images, toy.labels, "fgsm", 0.03, batch_size=24).records
    alone = evaluate(toy.model, toy.images, toy.labels, [], 0, batch_size=24).records
    assert shared.iloc[0][["top1", "top5", "forward_passes"]].equals(
        alone.iloc[0][["top1", "top5", "forward_passes"]]
    )
    # A folded form's logits are not the model's: then the clean measure has passes of its own.
    apart = evaluate(toy.model, toy.images, toy.labels, "pgd:steps=3", 0.03, batch_size=24).records
    assert apart.forward_passes.tolist() == [64, 256]


def test_a_model_random_at_test_time_is_measured_clean_without_the_attacks_draws(toy: Toy) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = toy.model

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images + 0.2 * torch.randn_like(images))

    attacked = evaluate(Noisy(), toy.images, toy.labels, "fgsm", 0.03).records
    clean = evaluate(Noisy(), toy.images, toy.labels, [], 0).records
    assert attacked.iloc[0].top1 == clean.iloc[0].top1
    # A pass for the gradient and one to measure.
    assert attacked.iloc[1].forward_passes == 128


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_numbers_are_those_of_the_images_that_perturb_gives(toy: Toy, norm: str) -> None:
    eps = [0.0, 0.02, 0.04] if norm == "linf" else [0.0, 0.3, 0.7]
    settings = {"eps": eps, "norm": norm, "seed": 3, "batch_size": 24}
    frame = evaluate(toy.model, toy.images, toy.labels, ["fgsm", "pgd"], **settings).records
    for attack in ("fgsm", "pgd"):
        images = perturb(toy.model, toy.images, toy.labels, attack, **settings)
        assert images.shape == (3, *toy.images.shape)
        rows = frame[frame.attack.isin(["clean", attack])]
        assert rows.eps.tolist() == eps
        for row, moved in zip(rows.itertuples(), images, strict=True):
            assert row.top1 == kept(toy.model, moved, toy.labels, 1, batch_size=24)
            assert row.top5 == kept(toy.model, moved, toy.labels, 5, batch_size=24)
    assert 0 < frame.top1.min() < frame.top1.max()


def test_intervals_and_verdict_follow_from_the_counts(toy: Toy) -> None:
    frame = evaluate(toy.model, toy.images, toy.labels, "fgsm", 0.03).records
    for row in frame.itertuples():
        assert (row.top1_low, row.top1_high) == interval(round(row.top1 * 64), 64)
        assert (row.top5_low, row.top5_high) == interval(round(row.top5 * 64), 64)
    untrained = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, TOY_CLASSES))
    frame = evaluate(untrained, toy.images, toy.labels, "fgsm", 0.03).records
    successes = round(frame.top1.iloc[0] * 64)
    assert frame.above_chance.tolist() == [above_chance(successes, 64, TOY_CLASSES)] * 2 == [False] * 2


def test_bytes_floats_and_arrays_are_the_same_images(toy: Toy, bytes_of_toy: np.ndarray) -> None:
    labels = toy.labels.tolist()
    expected = evaluate(toy.model, torch.from_numpy(bytes_of_toy), toy.labels).records
    read_only = bytes_of_toy.copy()
    read_only.flags.writeable = False
    for images in (
        bytes_of_toy,
        read_only,
        np.ascontiguousarray(bytes_of_toy[::-1])[::-1],
        bytes_of_toy / np.float32(255),
        torch.from_numpy(bytes_of_toy).float() / 255,
        bytes_of_toy / 255,
        torch.from_numpy(bytes_of_toy).float().div(255).requires_grad_(),
    ):
        assert same(evaluate(toy.model, images, labels).records, expected)
    for kind in (np.int64, np.int32, np.uint8):
        assert same(evaluate(toy.model, bytes_of_toy, np.array(labels, kind)).records, expected)


def test_the_inputs_stay(toy: Toy, bytes_of_toy: np.ndarray) -> None:
    images, before = toy.images.clone(), bytes_of_toy.copy()
    evaluate(toy.model, images, toy.labels)
    evaluate(toy.model, bytes_of_toy, toy.labels)
    assert torch.equal(images, toy.images)
    assert np.array_equal(bytes_of_toy, before)


def test_a_model_in_train_mode_is_measured_in_eval_mode_and_left_alone(
    toy: Toy, mixed_model: nn.Module
) -> None:
    before = copy.deepcopy(mixed_model.state_dict())
    modes = [module.training for module in mixed_model.modules()]
    first = evaluate(mixed_model, toy.images, toy.labels, name="mixed").records
    assert same(evaluate(mixed_model, toy.images, toy.labels, name="mixed").records, first)
    in_eval_mode = copy.deepcopy(mixed_model).eval()
    assert same(evaluate(in_eval_mode, toy.images, toy.labels, name="mixed").records, first)
    assert [module.training for module in mixed_model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in mixed_model.state_dict().items())


@pytest.mark.parametrize(
    ("eps", "expected"),
    [
        (0.03, [0, 0.03]),
        (0, [0]),
        ("8/255", [0, 8 / 255]),
        ("0,8/255,0.01", [0, 0.01, 8 / 255]),
        (["4/255", 0.01], [0, 0.01, 4 / 255]),
        ((0.01, 0.01), [0, 0.01]),
        (np.array([0.0, 0.25]), [0, 0.25]),
        (np.float64(0.25), [0, 0.25]),
    ],
)
def test_budgets_come_as_numbers_words_and_lists(toy: Toy, eps: object, expected: list[float]) -> None:
    frame = evaluate(toy.model, toy.images[:2], toy.labels[:2], "fgsm", eps).records
    assert frame.eps.tolist() == expected


@pytest.mark.parametrize("classes", [1, 2, 4, 200])
def test_any_number_of_classes(toy: Toy, classes: int) -> None:
    """With five or fewer, every label is in the top five."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, classes))
    labels = torch.arange(64) % classes
    frame = evaluate(model, toy.images, labels, "fgsm", 0.01).records
    assert set(frame.classes) == {classes}
    if classes <= 5:
        assert frame.top5.tolist() == [1.0, 1.0]
    with torch.no_grad():
        assert frame.top1[0] == float((model(toy.images).argmax(dim=1) == labels).double().mean())


def test_a_single_image_of_a_single_class(toy: Toy) -> None:
    frame = evaluate(toy.model, toy.images[:1], [int(toy.labels[0])]).records
    assert set(frame.n) == {1}
    assert frame.top1.isin([0.0, 1.0]).all()
    assert perturb(toy.model, toy.images[:1], [int(toy.labels[0])]).shape == (2, 1, 3, 16, 16)


def test_a_model_without_parameters_is_on_the_cpu(toy: Toy) -> None:
    class Channels(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean(dim=(2, 3))

    frame = evaluate(Channels(), toy.images, toy.labels % 3, "fgsm", 0.1).records
    assert set(frame.device) == {"cpu"}
    assert set(frame.model) == {"Channels"}


def test_it_works_within_inference_mode(toy: Toy) -> None:
    expected = evaluate(toy.model, toy.images, toy.labels).records
    with torch.inference_mode():
        assert same(evaluate(toy.model, toy.images.clone(), toy.labels.clone()).records, expected)


def test_the_seed_and_nothing_else_decides(toy: Toy) -> None:
    def start(seed: int) -> Tensor:
        return perturb(toy.model, toy.images, toy.labels, "pgd:steps=1", 0.03, seed=seed)

    torch.manual_seed(1)
    one = start(7)
    torch.manual_seed(2)
    assert torch.equal(start(7), one)
    assert not torch.equal(start(8), one)


def test_each_batch_draws_its_own_random_start(toy: Toy) -> None:
    images, labels = toy.images[:1].repeat(2, 1, 1, 1), toy.labels[:1].repeat(2)
    one, other = perturb(toy.model, images, labels, "pgd:steps=1", 0.03, batch_size=1)
    assert not torch.equal(one, other)


class Spoilt(nn.Module):
    """A trained network whose logits are spoilt, on batches of more than one image if so asked."""

    def __init__(self, toy: Toy, spoil: Callable[[Tensor], object], *, spare_one: bool = False) -> None:
        super().__init__()
        self.inner, self.spoil, self.spare_one = toy.model, spoil, spare_one

    def forward(self, images: Tensor) -> object:
        logits = self.inner(images)
        return logits if self.spare_one and len(images) == 1 else self.spoil(logits)


def fail(logits: Tensor) -> Tensor:
    raise RuntimeError("shapes\ndo not fit")


@pytest.mark.parametrize(
    ("spoil", "spare_one", "reason"),
    [
        (lambda logits: logits * float("nan"), False, "logits are not finite"),
        (fail, True, "shapes do not fit"),
        (lambda logits: logits[1:], True, "returned"),
    ],
)
def test_a_model_that_fails_has_failed_measures(
    toy: Toy, spoil: Callable, spare_one: bool, reason: str
) -> None:
    model = Spoilt(toy, spoil, spare_one=spare_one)
    frame = evaluate(model, toy.images, toy.labels).records
    assert frame.status.str.match(f"failed: .*{reason}").all()
    assert frame[["top1", "top1_low", "top1_high", "top5", "top5_low", "top5_high"]].isna().all(axis=None)
    assert frame.above_chance.isna().all()
    with pytest.raises(AttackFailure, match=reason):
        perturb(model, toy.images, toy.labels)


@pytest.mark.parametrize("call", [evaluate, perturb])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            fail,
            r"the model fails on one image \(RuntimeError: shapes do not fit\); expected a model from",
        ),
        (lambda logits: logits.flatten(), r"the model returned shape \(10,\) for one image; expected"),
        (lambda logits: {"logits": logits}, r"the model returned the parts logits .* --output logits"),
    ],
)
def test_what_is_no_classifier_is_refused_in_one_line(
    toy: Toy, call: Callable, spoil: Callable, reason: str
) -> None:
    with pytest.raises(InvalidSettingError, match=reason) as caught:
        call(Spoilt(toy, spoil), toy.images, toy.labels)
    assert "\n" not in str(caught.value)


def hard_label(logits: Tensor) -> Tensor:
    return functional.one_hot(logits.argmax(dim=1), logits.shape[1])


@pytest.mark.parametrize("call", [evaluate, perturb])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda logits: logits.softmax(dim=1),
        lambda logits: logits.softmax(dim=1).double(),
        lambda logits: logits.bfloat16().softmax(dim=1),
        lambda logits: logits.half().softmax(dim=1),
        lambda logits: (1e4 * logits).softmax(dim=1),
        hard_label,
    ],
)
def test_probabilities_in_the_place_of_logits_are_refused(toy: Toy, call: Callable, spoil: Callable) -> None:
    for count in (1, 64):
        with pytest.raises(InvalidSettingError, match=r"returned probabilities .* expected logits") as caught:
            call(Spoilt(toy, spoil), toy.images[:count], toy.labels[:count])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda logits: logits.log_softmax(dim=1),
        lambda logits: logits - logits.mean(dim=1, keepdim=True) + 0.1,
        lambda logits: logits.sigmoid(),
        lambda logits: 1.001 * logits.softmax(dim=1),
        lambda logits: torch.ones_like(logits[:, :1]),
        # A single row alone may well be one.
        lambda logits: torch.where(logits.argmax(dim=1, keepdim=True) == 0, logits.softmax(dim=1), logits),
    ],
)
def test_logits_that_look_a_little_like_probabilities_are_not(toy: Toy, spoil: Callable) -> None:
    """Whose rows sum to 1 but have negative values, or are all in [0, 1] but sum to something else."""
    model = Spoilt(toy, spoil)
    classes = spoil(toy.model(toy.images[:1])).shape[1]
    assert evaluate(model, toy.images, toy.labels % classes, "fgsm", 0.01).records.classes[0] == classes


@pytest.mark.parametrize("call", [evaluate, perturb])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": lambda toy: toy.images * 255}, r"values from 0 to 255; expected \[0, 1\]"),
        ({"images": lambda toy: toy.images - 0.5}, r"expected \[0, 1\]"),
        ({"images": lambda toy: toy.images * float("nan")}, r"values from nan to nan; expected \[0, 1\]"),
        ({"images": lambda toy: (toy.images * 255).int()}, r"expected \[0, 1\]"),
        ({"images": lambda toy: toy.images[0]}, r"images got shape \(3, 16, 16\)"),
        ({"images": lambda toy: toy.images[:0]}, r"images got shape \(0, 3, 16, 16\)"),
        ({"labels": lambda toy: toy.labels[:-1]}, r"labels got shape \(63,\); expected \(64,\)"),
        ({"labels": lambda toy: toy.labels[:, None]}, r"labels got shape \(64, 1\); expected \(64,\)"),
        ({"labels": lambda toy: toy.labels - 1}, "negative"),
        ({"labels": lambda toy: toy.labels.float()}, "fractions"),
        ({"labels": lambda toy: toy.labels + 1}, "labels got values up to 10; expected values below 10"),
        ({"eps": lambda toy: -0.1}, "eps got -0.1"),
        ({"eps": lambda toy: "8/0"}, "eps got '8/0'"),
        ({"eps": lambda toy: []}, "eps got an empty list"),
        ({"norm": lambda toy: "l1"}, "norm got 'l1'"),
        ({"batch_size": lambda toy: 0}, "batch_size got 0"),
        ({"batch_size": lambda toy: -3}, "batch_size got -3"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    toy: Toy, call: Callable, change: dict, reason: str
) -> None:
    given = {"images": toy.images, "labels": toy.labels} | {key: of(toy) for key, of in change.items()}
    with pytest.raises(RobustTinError, match=reason) as caught:
        call(toy.model, **given)
    assert "\n" not in str(caught.value)


def test_unknown_attacks_are_refused(toy: Toy) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fgsm'"):
        evaluate(toy.model, toy.images, toy.labels, "fgms")
    with pytest.raises(UnknownNameError, match="did you mean 'pgd'"):
        perturb(toy.model, toy.images, toy.labels, "pdg")


def test_perturb_answers_in_the_order_of_its_budgets(toy: Toy) -> None:
    images, labels = toy.images[:4], toy.labels[:4]
    rising = perturb(toy.model, images, labels, attack="fgsm", eps=[0.0, 0.01, 0.1])
    falling = perturb(toy.model, images, labels, attack="fgsm", eps="0.1,0.01,0.0")
    assert torch.equal(rising, falling.flip(0))
