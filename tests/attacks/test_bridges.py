"""Bridges: other libraries' attacks under our terms, beside ours and the library's own."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import Toy

from robustbench_tin import perturb
from robustbench_tin.attacks import AttackedModel, parse_attack
from robustbench_tin.attacks.base import AttackFailure
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.attacks.external.base import CountedModule, seeded_globally
from robustbench_tin.benchmarks.measurement.attack import measure_attack
from robustbench_tin.cli.listing import describe
from robustbench_tin.errors import InvalidSettingError, RobustTinError, UnknownNameError
from robustbench_tin.metrics import in_top
from robustbench_tin.specs import split_list

EPS = {"linf": 8 / 255, "l2": 0.5}


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with AttackedModel(model) as attacked:
        return float(in_top(attacked.logits(images), labels, 1).float().mean())


def counted(toy: Toy, spec: str, images: int = 8) -> tuple[float, float]:
    """Forward and backward passes an image."""
    with AttackedModel(toy.model) as attacked:
        perturb_images(parse_attack(spec), attacked, toy.images[:images], toy.labels[:images], [8 / 255])
        return attacked.forward_passes / images, attacked.backward_passes / images


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_of_art_is_our_fgsm(toy: Toy, norm: str) -> None:
    ours = perturb(toy.model, toy.images, toy.labels, "fgsm", EPS[norm], norm)
    theirs = perturb(toy.model, toy.images, toy.labels, "art:FastGradientMethod", EPS[norm], norm)
    assert (ours - theirs).abs().max() <= 2e-6


def test_pgd_of_art_is_our_pgd(toy: Toy) -> None:
    spec = "art:ProjectedGradientDescent:eps_step=0.01,max_iter=5"
    ours = perturb(toy.model, toy.images, toy.labels, "pgd:alpha=0.01,random_start=false,steps=5", 8 / 255)
    theirs = perturb(toy.model, toy.images, toy.labels, spec, 8 / 255)
    assert ((ours - theirs).abs() > 1.2e-7).float().mean() <= 1e-3


@pytest.mark.parametrize(
    ("spec", "images", "at_most"),
    [
        ("art:DeepFool:max_iter=20", 10, 0.1),
        ("art:SquareAttack:max_iter=20", 24, 0.9),
        ("art:CarliniLInfMethod:max_iter=3", 2, 1.0),
        ("art:ProjectedGradientDescent:max_iter=10", 24, 0.1),
        ("art:AutoProjectedGradientDescent:max_iter=5,nb_random_init=1", 24, 0.1),
    ],
)
def test_art_attacks_a_classifier(toy: Toy, spec: str, images: int, at_most: float) -> None:
    moved = perturb(toy.model, toy.images[:images], toy.labels[:images], spec, 0.15)
    assert not torch.equal(moved, toy.images[:images])
    assert accuracy(toy.model, moved, toy.labels[:images]) <= at_most


def test_an_attack_of_least_change_breaks_more_in_a_larger_ball(toy: Toy) -> None:
    images, labels = toy.images[:16], toy.labels[:16]
    with AttackedModel(toy.model) as attacked:
        attack = parse_attack("art:DeepFool:max_iter=20")
        moved = perturb_images(attack, attacked, images, labels, (0.1, 0.5, 2.0), norm="l2")
        passes = attacked.backward_passes
        perturb_images(attack, attacked, images, labels, (2.0,), norm="l2")
        assert attacked.backward_passes == 2 * passes, "it should run once for all budgets"
    kept = [accuracy(toy.model, each, labels) for each in moved]
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < 0.1


def test_deepfool_mends_no_mistake(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It walks away from the predicted class, right or wrong; a wrong image must not come back right."""
    images = toy.images[:16]
    with AttackedModel(toy.model) as attacked:
        second = attacked.logits(images).topk(2).indices[:, 1]
    moved = perturb(toy.model, images, second, "art:DeepFool:max_iter=20", 2.0, "l2")
    assert accuracy(toy.model, moved, second) == 0
    monkeypatch.setattr(type(parse_attack("art:DeepFool")), "ignores_labels", False)
    left_alone = perturb(toy.model, images, second, "art:DeepFool:max_iter=20", 2.0, "l2")
    assert accuracy(toy.model, left_alone, second) > 0.5


@pytest.mark.parametrize("criterion", ["top1", "top5"])
def test_it_can_go_on_until_broken(toy: Toy, criterion: str) -> None:
    attack = parse_attack(f"art:ProjectedGradientDescent:criterion={criterion},max_iter=5")
    batches = ImageBatches(toy.images, toy.labels, 16, torch.device("cpu"))
    (outcomes,) = measure_attack(toy.model, batches, attack, [0.1])
    assert str(outcomes.status) == "ok"
    measured = outcomes.top1 if criterion == "top1" else outcomes.top5
    other = outcomes.top5 if criterion == "top1" else outcomes.top1
    assert measured is not None
    assert other is None
    assert measured.mean() < 1


def test_passes_are_counted(toy: Toy) -> None:
    forward, backward = counted(toy, "art:ProjectedGradientDescent:max_iter=5")
    assert backward == 5
    # Five with a gradient, one image to count the classes, and ART's own queries.
    assert 5 + 1 / 8 <= forward <= 8
    assert counted(toy, "art:SquareAttack:max_iter=5")[1] == 0


def test_a_step_left_out_keeps_the_librarys_part_of_eps(toy: Toy) -> None:
    """ART's defaults are eps 0.3 and steps of 0.1."""
    left_out = perturb(toy.model, toy.images, toy.labels, "art:BasicIterativeMethod:max_iter=2", 0.03)
    given = perturb(
        toy.model, toy.images, toy.labels, "art:BasicIterativeMethod:eps_step=0.01,max_iter=2", 0.03
    )
    assert (left_out - given).abs().max() < 1e-6


def test_specs_are_canonical() -> None:
    one, other = (
        parse_attack(f"art:SquareAttack:{settings}")
        for settings in ("p_init=0.5,max_iter=20,nb_restarts=1", "max_iter=20,p_init=1/2")
    )
    assert one == other
    assert one.spec == "art:SquareAttack:max_iter=20,p_init=0.5"
    assert parse_attack(one.spec) == one
    assert parse_attack("art:DeepFool") != parse_attack("art:NewtonFool")
    assert split_list("fgsm,art:SquareAttack:max_iter=20,p_init=0.5,art:DeepFool") == [
        "fgsm",
        one.spec,
        "art:DeepFool",
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("art:DeepFol", "unknown evasion attack 'art:DeepFol'; did you mean 'art:DeepFool'"),
        ("art:PoisoningAttackBackdoor", "unknown evasion attack"),
        ("art:CopycatCNN", "unknown evasion attack"),
        ("art:AdversarialPatch", "unknown evasion attack"),
        ("art:DeepFool:max_itr=3", "did you mean 'max_iter'"),
        ("art:DeepFool:max_iter=many", "max_iter=many; expected int"),
        ("art:DeepFool:max_iter=2.5", "max_iter=2.5; expected int"),
        ("art:SquareAttack:eps=0.1", "got eps=0.1, which the measurement sets"),
        ("art:SquareAttack:norm=2", "got norm=2, which the measurement sets"),
        ("art:CarliniL2Method:targeted=true", "only untargeted"),
        ("art:", "has no name"),
    ],
)
def test_a_mistake_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(RobustTinError) as caught:
        parse_attack(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_that_the_library_refuses_is_told_before_anything_runs() -> None:
    with pytest.raises(InvalidSettingError, match="refuses attack 'art:DeepFool:max_iter=-1': ValueError"):
        parse_attack("art:DeepFool:max_iter=-1").check("linf")


def test_generators_that_art_makes_without_a_seed_follow_from_ours(toy: Toy) -> None:
    """HopSkipJump draws from one of its own."""
    spec = "art:HopSkipJump:init_eval=4,init_size=20,max_eval=8,max_iter=1"
    one, same, other = (
        perturb(toy.model, toy.images[:2], toy.labels[:2], spec, 1.0, "l2", seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_norm_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="got norm l2; expected linf"):
        parse_attack("art:BasicIterativeMethod").check("l2")


def test_every_attack_that_is_offered_can_be_made_from_its_name() -> None:
    from robustbench_tin.attacks.external.art import _NEEDS, _targets

    names = [name for name in _targets() if name not in _NEEDS or find_spec(_NEEDS[name])]
    assert len(names) > 20
    for name in names:
        attack = parse_attack(f"art:{name}")
        assert attack.spec == f"art:{name}"
        assert attack.norms
        assert len(attack.remarks(10)) == 1


@pytest.mark.parametrize(
    ("spec", "one_budget", "three_budgets"),
    [
        ("art:FastGradientMethod", 1, 3),
        ("art:SquareAttack:max_iter=20", 20, 60),
        ("art:DeepFool:max_iter=20", 20, 20),
        ("art:SaliencyMapMethod", 10, 10),
    ],
)
def test_only_a_single_step_passes_for_one(spec: str, one_budget: int, three_budgets: int) -> None:
    """The trust checks tell single steps from searches by it; least changes are looked for once."""
    attack = parse_attack(spec)
    assert (attack.gradients(1), attack.gradients(3)) == (one_budget, three_budgets)


def test_the_prefixes_are_listed() -> None:
    names = [row.name for row in describe("attacks")]
    assert {"art:CLASS", "foolbox:CLASS", "torchattacks:CLASS"} <= set(names)


def test_naming_the_registry_imports_no_library() -> None:
    code = (
        "import sys, robustbench_tin.attacks as attacks; attacks.registry.names()\n"
        "heavy = {'torch', 'art', 'foolbox', 'torchattacks', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


LIBRARIES = {"art", "sklearn", "foolbox", "torchattacks"}


def imported_by(code: str) -> set[str]:
    """Which of the libraries a Python of its own has imported after this."""
    code += f"\nimport sys; print('imported', *({LIBRARIES!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_only_an_attack_of_a_library_imports_it() -> None:
    """ART takes scikit-learn along: no module needs either as it loads, nor any other attack as it works."""
    code = """
import importlib, pkgutil, sys
import robustbench_tin
for module in pkgutil.walk_packages(robustbench_tin.__path__, "robustbench_tin."):
    if not module.name.endswith(("__main__", "pytest_plugin")):
        importlib.import_module(module.name)
import torch
from robustbench_tin import evaluate
from robustbench_tin.attacks import parse_attack, registry
for name in registry.names():
    parse_attack(name).check("linf")
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
attacks = "fgsm,autoattack:queries=2,steps=1,targets=1"
images = torch.rand(24, 3, 8, 8)
assert len(evaluate(model, images, model(images).argmax(1), attacks, 0.03, trust=True).records) == 3
from robustbench_tin.cli.app import main
sys.argv = ["robust-tin", "list", "attacks"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    assert imported_by(code) == set()
    importlib.import_module("art")
    assert {"art", "sklearn"} <= set(sys.modules)


class TestSeen:
    """The model as a library sees it."""

    def test_an_error_that_a_library_swallows_is_still_a_failure(
        self, toy: Toy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attack = parse_attack("art:DeepFool")

        def careless(self, built, seen: CountedModule, labels: Tensor, ball) -> Tensor:
            try:
                seen(torch.full_like(ball.images, float("nan")))
            except AttackFailure:
                return ball.images
            raise AssertionError

        monkeypatch.setattr(type(attack), "move", careless)
        with (
            AttackedModel(toy.model) as attacked,
            pytest.raises(AttackFailure, match="image that is not finite"),
        ):
            perturb_images(attack, attacked, toy.images[:2], toy.labels[:2], [0.1])

    def test_switching_it_to_train_mode_switches_nothing(self, mixed_model: nn.Module) -> None:
        with AttackedModel(mixed_model) as attacked:
            seen = CountedModule(attacked.tracked, torch.device("cpu"))
            seen.train()
            assert not any(module.training for module in mixed_model.modules())

    def test_gradients_are_the_models_and_counted(self, toy: Toy) -> None:
        images = toy.images[:3].clone().requires_grad_()
        with AttackedModel(toy.model) as attacked:
            loss = nn.functional.cross_entropy(attacked.tracked(images), toy.labels[:3], reduction="sum")
            (gradient,) = torch.autograd.grad(loss, images)
            assert (attacked.forward_passes, attacked.backward_passes) == (3, 3)
            expected = attacked.gradient(toy.images[:3], toy.labels[:3])
        assert torch.allclose(gradient, expected, atol=1e-6)

    def test_expectation_over_transformations_averages_passes(self, toy: Toy) -> None:
        class Noisy(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                logits: Tensor = toy.model(images + 0.3 * torch.randn_like(images))
                return logits

        with AttackedModel(Noisy(), eot=4) as attacked:
            images = toy.images[:2].clone().requires_grad_()
            attacked.tracked(images).sum().backward()
            assert (attacked.forward_passes, attacked.backward_passes) == (8, 8)


def test_memory_that_runs_out_halves_the_batch(toy: Toy) -> None:
    sizes = []

    class Hungry(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            if len(images) > 3:
                raise torch.OutOfMemoryError
            logits: Tensor = toy.model(images)
            return logits

    with AttackedModel(Hungry()) as attacked:
        moved = perturb_images(
            parse_attack("art:FastGradientMethod"), attacked, toy.images[:8], toy.labels[:8], [8 / 255]
        )[0]
    assert 8 in sizes
    assert torch.equal(moved, perturb(toy.model, toy.images[:8], toy.labels[:8], "fgsm", 8 / 255))


def test_every_global_generator_is_seeded_and_put_back() -> None:
    def draw() -> list[float]:
        return [random.random(), np.random.rand(), float(torch.rand(()))]  # noqa: NPY002

    def states() -> list[object]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # noqa: NPY002

    before = states()
    with seeded_globally(3, torch.device("cpu")):
        first = draw()
    assert states() == before
    with seeded_globally(3, torch.device("cpu")):
        assert draw() == first
    assert states() == before


class TestFoolbox:
    """Needs foolbox."""

    @pytest.fixture(autouse=True)
    def _needs(self) -> None:
        pytest.importorskip("foolbox")

    @pytest.mark.parametrize(("name", "norm"), [("LinfFastGradientAttack", "linf"), ("FGM", "l2")])
    def test_fgsm_is_our_fgsm(self, toy: Toy, name: str, norm: str) -> None:
        ours = perturb(toy.model, toy.images, toy.labels, "fgsm", EPS[norm], norm)
        theirs = perturb(toy.model, toy.images, toy.labels, f"foolbox:{name}", EPS[norm], norm)
        assert (ours - theirs).abs().max() <= 2e-6

    def test_an_attack_of_least_change_works_in_both_norms(self, toy: Toy) -> None:
        for norm, eps in (("linf", 0.1), ("l2", 1.0)):
            moved = perturb(toy.model, toy.images, toy.labels, "foolbox:DDNAttack:steps=10", eps, norm)
            assert accuracy(toy.model, moved, toy.labels) < 0.5

    @pytest.mark.parametrize(
        ("spec", "error"),
        [
            ("foolbox:LinfPGDD", UnknownNameError),
            ("foolbox:L1PGD", UnknownNameError),
            ("foolbox:DatasetAttack", UnknownNameError),
            ("foolbox:LinfPGD:step=3", UnknownNameError),
            ("foolbox:VirtualAdversarialAttack", InvalidSettingError),
            ("foolbox:L2DeepFoolAttack:loss=hinge", InvalidSettingError),
        ],
    )
    def test_a_mistake_is_one_line(self, spec: str, error: type[Exception]) -> None:
        with pytest.raises(error) as caught:
            parse_attack(spec)
        assert "\n" not in str(caught.value)

    def test_a_norm_that_it_does_not_know_is_refused(self) -> None:
        with pytest.raises(InvalidSettingError, match="got norm l2; expected linf"):
            parse_attack("foolbox:LinfPGD").check("l2")


class TestTorchattacks:
    """Needs torchattacks."""

    @pytest.fixture(autouse=True)
    def _needs(self) -> None:
        pytest.importorskip("torchattacks")

    def test_fgsm_is_our_fgsm(self, toy: Toy) -> None:
        ours = perturb(toy.model, toy.images, toy.labels, "fgsm", 8 / 255)
        theirs = perturb(toy.model, toy.images, toy.labels, "torchattacks:FGSM", 8 / 255)
        assert (ours - theirs).abs().max() <= 2e-6

    def test_pgd_starts_and_steps_within_the_ball(self, toy: Toy) -> None:
        moved = perturb(toy.model, toy.images, toy.labels, "torchattacks:PGD:steps=5", 8 / 255)
        assert accuracy(toy.model, moved, toy.labels) < 0.8

    def test_it_is_told_the_number_of_classes(self, toy: Toy) -> None:
        """Its default is ten; a target beyond the model's classes would raise."""

        class Three(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                logits: Tensor = toy.model(images)
                return logits[:, :4]

        chosen = toy.labels < 4
        moved = perturb(Three(), toy.images[chosen], toy.labels[chosen], "torchattacks:APGDT:steps=3", 0.05)
        assert torch.isfinite(moved).all()

    def test_a_number_without_a_type_may_be_a_fraction(self) -> None:
        assert parse_attack("torchattacks:CW:c=0.5").spec == "torchattacks:CW:c=0.5"
        assert parse_attack("torchattacks:CW:c=1.0").spec == "torchattacks:CW"


@pytest.mark.parametrize(
    ("library", "remedy"),
    [
        ("art", "pip install adversarial-robustness-toolbox"),
        ("foolbox", "pip install foolbox"),
        ("torchattacks", "pip install --no-deps torchattacks"),
    ],
)
def test_a_library_that_is_missing_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, library: str, remedy: str
) -> None:
    from importlib import import_module

    find: Callable = import_module(f"robustbench_tin.attacks.external.{library}").find
    find.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InvalidSettingError) as caught:
        parse_attack(f"{library}:PGD")
    assert f"attack '{library}:PGD' needs the package {library}" in str(caught.value)
    assert str(caught.value).endswith(remedy)
    find.cache_clear()
