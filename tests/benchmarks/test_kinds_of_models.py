"""Models as people bring them: scripts, exported programs, functions, and those without gradients."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import TOY_CLASSES, Toy

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks.base import AttackFailure
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.measurement.black_box_stand_in import STAND_IN

ATTACKS = ["fgsm", "pgd:steps=5", "pgd:criterion=top1,steps=5", "square:queries=20"]


@pytest.fixture
def toy(toy: Toy) -> Toy:
    return Toy(toy.model, toy.images[:24], toy.labels[:24])


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Hide torch's warnings about its plans for file formats and quantisers."""
    warnings.simplefilter("ignore")


def traced(model: nn.Module) -> nn.Module:
    return torch.jit.trace(model, torch.rand(2, 3, 16, 16))


def frozen(model: nn.Module) -> nn.Module:
    return torch.jit.freeze(torch.jit.script(model.eval()))


def exported(model: nn.Module) -> nn.Module:
    shapes = ({0: torch.export.Dim("n", min=1)},)
    return torch.export.export(model, (torch.rand(4, 3, 16, 16),), dynamic_shapes=shapes).module()


def exported_for_four(model: nn.Module) -> nn.Module:
    return torch.export.export(model, (torch.rand(4, 3, 16, 16),)).module()


def function(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda images: model(images)


KINDS = [torch.jit.script, traced, frozen, exported, exported_for_four, nn.DataParallel, function]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("search", ["fixed", "fastest"])
def test_every_kind_has_the_figures_of_the_module(toy: Toy, kind: Callable, search: str) -> None:
    model = copy.deepcopy(toy.model)
    expected = evaluate(model, toy.images, toy.labels, ATTACKS, 0.02, search="exact").records
    frame = evaluate(kind(model), toy.images, toy.labels, ATTACKS, 0.02, search=search).records
    assert set(frame.status) == {"ok"}
    # Searches in another form may end an image apart.
    assert (frame.top1 - expected.top1).abs().max() <= 1 / 24
    assert frame.top1[0] == expected.top1[0]
    given = toy.images.clone()
    assert perturb(kind(model), given, toy.labels, "pgd:steps=2", 0.02).shape == given.shape


def test_a_module_in_train_mode_within_a_function_is_measured_in_eval_mode(toy: Toy) -> None:
    network = nn.Sequential(nn.Dropout(0.5), *copy.deepcopy(toy.model)).train()
    frame = evaluate(lambda images: network(images), toy.images, toy.labels, "fgsm", 0.02, trust=True).records
    expected = evaluate(toy.model, toy.images, toy.labels, "fgsm", 0.02).records
    assert frame.top1.tolist() == expected.top1.tolist()
    assert frame.trust[1] == "ok"
    assert network.training
    assert network[0].training


class Purifying(nn.Module):
    """Moves its images up a gradient of its own before it answers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            seen = images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.network(seen).logsumexp(dim=1).sum(), seen)
        return self.network(images + 0.01 * gradient.sign())


class Caching(nn.Module):
    """Keeps a tensor of its first call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        if self.mean is None:
            self.mean = torch.full((1, 3, 1, 1), 0.01)
        return self.network(images - self.mean)


@pytest.mark.parametrize("kind", [Purifying, Caching])
def test_autograd_within_and_caches_are_left_to_work(toy: Toy, kind: Callable) -> None:
    model = kind(toy.model)
    frame = evaluate(model, toy.images, toy.labels, ATTACKS, 0.02, trust=True).records
    assert set(frame.status) == {"ok"}
    model(toy.images[:2].clone().requires_grad_()).sum().backward()
    toy.model.zero_grad(set_to_none=True)


def quantised(model: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)


class Blind(nn.Module):
    """A network whose answers lead nowhere back."""

    def __init__(self, network: nn.Module, how: str) -> None:
        super().__init__()
        self.network, self.how = network, how

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "numpy":
            return self.network(torch.from_numpy(images.numpy()))
        with torch.no_grad():
            logits: Tensor = self.network(images)
        return 5.0 * functional.one_hot(logits.argmax(dim=1), TOY_CLASSES) if self.how == "labels" else logits


BLIND = pytest.mark.parametrize(
    "plant",
    [
        quantised,
        *(
            pytest.param(lambda model, how=how: Blind(model, how), id=how)
            for how in ("no graph", "numpy", "labels")
        ),
    ],
)


ATTEMPTED = "fgsm,pgd:steps=2,noise"


@BLIND
def test_without_gradients_square_stands_in_and_says_so(
    toy: Toy, plant: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustbench_tin.benchmarks.measurement import black_box_stand_in as stand_in

    monkeypatch.setattr(stand_in, "STAND_IN", "square:queries=30")
    frame = evaluate(plant(toy.model), toy.images, toy.labels, ATTEMPTED, [0.01, 0.02], trust=True).records
    rows = frame.set_index(["attack", "eps"])
    for attack in ("fgsm", "pgd:steps=2"):
        for eps in (0.01, 0.02):
            row = rows.loc[attack, eps]
            assert row.status.startswith("not measured: the model gives no gradients (")
            assert row.status.endswith("), square:queries=30 is measured instead")
            assert row[["top1", "top5"]].isna().all()
    for eps in (0.01, 0.02):
        row = rows.loc["square:queries=30", eps]
        assert row.status == rows.loc["noise", eps].status == "ok"
        assert row.remarks.endswith("stands in for fgsm, pgd:steps=2: the model gives no gradients")
        for attack in ("square:queries=30", "noise"):
            assert [reason["code"] for reason in rows.loc[attack, eps].trust_codes] == [
                TrustCode.no_gradients
            ]
            text = "unchecked: the model gives no gradients, so only black-box attacks were tried"
            assert rows.loc[attack, eps].trust.startswith(text)
        for attack in ("fgsm", "pgd:steps=2"):
            assert rows.loc[attack, eps].trust == "unchecked: nothing was measured"
    assert rows.loc["clean", 0.0].top1 > 0.9


@BLIND
def test_an_attack_by_queries_that_was_asked_for_is_enough(toy: Toy, plant: Callable) -> None:
    frame = evaluate(plant(toy.model), toy.images, toy.labels, "fgsm,square:queries=5", 0.01).records
    assert frame.attack.tolist() == ["clean", "fgsm", "square:queries=5"]
    assert frame.status.str.startswith("not measured").tolist() == [False, True, False]
    assert "is measured instead" not in frame.status[1]
    with pytest.raises(AttackFailure):
        perturb(plant(toy.model), toy.images, toy.labels, "fgsm", 0.01)


def test_a_failure_is_not_taken_for_a_want_of_gradients(toy: Toy) -> None:
    class Failing(nn.Module):
        """Cannot take more than one image."""

        def forward(self, images: Tensor) -> Tensor:
            return toy.model(images) if len(images) == 1 else toy.model(images).flatten()

    frame = evaluate(Failing(), toy.images, toy.labels, "fgsm", 0.01).records
    assert frame.status.str.startswith("failed: the model returned").all()
    assert len(frame) == 2


def test_the_stand_in_is_an_attack() -> None:
    from robustbench_tin.attacks import parse_attack

    assert not parse_attack(STAND_IN).needs_gradients
    assert parse_attack(STAND_IN).spec == STAND_IN
