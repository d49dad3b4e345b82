"""The rules for every attack, with every model and in every measurement; one function per rule."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.engine.attacked_model import AttackFailure
from robustbench_tin.benchmarks.codes.status import OK, StatusCode
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.specs import eps_text, parse_spec
from robustbench_tin.testing.attack_case import AttackCase, changed, state_of
from robustbench_tin.testing.models import (
    FAILURES,
    Adapting,
    Broken,
    FailsAtSize,
    Normalising,
    Spoil,
    build_mixed_model,
    detach,
)
from robustbench_tin.testing.rules import Rules, is_registered, must_raise, require
from robustbench_tin.threat import L2_TOLERANCE

ATTACK_RULES: Rules[AttackCase] = Rules()
rule = ATTACK_RULES.rule


@rule("return float32 images inside the ball and the pixel box", each_norm=True)
def results_are_images_inside_their_ball(case: AttackCase) -> None:
    """Exactly inside: linf to the last bit, l2 to one part in a million."""
    moved = case.perturb()
    _require_images(case, moved, case.toy.images, case.eps)
    require(torch.equal(moved[0], case.toy.images), "for eps 0 it returned other images than the clean ones")


def _require_images(case: AttackCase, moved: Tensor, images: Tensor, eps: tuple[float, ...]) -> None:
    shape = (len(eps), *images.shape)
    require(moved.shape == shape, f"it returned the shape {tuple(moved.shape)}; expected {shape}")
    require(moved.dtype == torch.float32, f"it returned {moved.dtype}; expected torch.float32")
    require(not moved.requires_grad, "its images require a gradient; expected detached ones")
    require(torch.isfinite(moved).all(), "its images hold a value that is not finite")
    require(((moved >= 0) & (moved <= 1)).all(), "its images leave the pixel box; expected values in [0, 1]")
    change = (moved.double() - images.double()).flatten(2)
    for budget, of_images in zip(eps, change, strict=True):
        if case.norm == "linf":
            lengths, most = of_images.abs().amax(dim=1), budget
        else:
            lengths, most = of_images.norm(dim=1), budget * (1 + L2_TOLERANCE)
        longest = max(lengths.tolist(), default=0.0)
        require(longest <= most, f"for eps {eps_text(budget)} it moved an image by {longest:.9g}")


@rule("move images if the budget is large enough", each_norm=True)
def images_move(case: AttackCase) -> None:
    """An attack that stops on success may find nothing in a small ball; in the whole pixel box, it must."""
    eps = case.usual if case.attack.criterion is None else case.eps[3]
    require(
        not torch.equal(case.perturb([eps])[0], case.toy.images), f"for eps {eps_text(eps)} no image moved"
    )


@rule("accept batches of any size", each_norm=True)
def batches_of_any_size(case: AttackCase) -> None:
    """No image, one, or three: the last batch of a data set is seldom full."""
    for size in (0, 1, 3):
        images = case.toy.images[:size]
        moved = case.perturb([case.usual], images=images, labels=case.toy.labels[:size])
        require(
            moved.shape == (1, *images.shape),
            f"for a batch of {size} it returned the shape {tuple(moved.shape)}",
        )
        _require_images(case, moved, images, (case.usual,))


@rule("leave the images and labels as they are", each_norm=True)
def inputs_are_not_written_to(case: AttackCase) -> None:
    """They belong to the caller; moving a clean image would move the ball."""
    images, labels = case.toy.images.clone(), case.toy.labels.clone()
    case.perturb(images=images, labels=labels)
    for name, given, before in (("images", images, case.toy.images), ("labels", labels, case.toy.labels)):
        require(torch.equal(given, before) and given._version == 0, f"it wrote into the {name}")


@rule("leave the model and all random states as they were", each_norm=True)
def model_and_random_states_are_restored(case: AttackCase) -> None:
    """Weights, buffers, modes, flags, gradients, random states and precision."""
    model = build_mixed_model()
    before = state_of(model)
    case.perturb(model=model, images=case.toy.images[:6], labels=case.toy.labels[:6])
    require(not changed(before, model), f"it changed: {changed(before, model)}")


def _failures(case: AttackCase, *, judged: bool) -> Iterator[tuple[str, Spoil, str]]:
    """The failures that this attack can notice: one that needs no gradient does not miss it."""
    forward, backward = case.passes(0.01, images=1)
    for name, (spoil, reason) in FAILURES.items():
        if not ((spoil is detach and backward == 0) or (forward == 0 and not judged)):
            yield name, spoil, reason


@rule("fail if the model fails, and leave the model as it was")
def failing_model_is_a_failure(case: AttackCase) -> None:
    """An error that the attack hides would count images as robust."""
    for name, spoil, reason in _failures(case, judged=False):
        model = Broken(case.toy.model, spoil)
        before = state_of(model)
        few = {"images": case.toy.images[:4], "labels": case.toy.labels[:4]}
        must_raise(
            lambda model=model, few=few: case.perturb([case.usual], model=model, **few),  # type: ignore[misc]
            AttackFailure,
            reason,
            f"if the model {name}",
        )
        require(not changed(before, model), f"if the model {name}, it changed: {changed(before, model)}")


@rule("report a failed measurement for a failing model, neither robust nor zero")
def failed_measurement_has_no_result(case: AttackCase) -> None:
    """At each eps, with its reason in one line."""
    for name, spoil, _ in _failures(case, judged=True):
        model = Broken(case.toy.model, spoil)
        before = state_of(model)
        for outcomes in case.measure(model, (0.01, 0.03), images=4, batch_size=4):
            require(
                outcomes.status.code is StatusCode.failed and "\n" not in str(outcomes.status),
                f"if the model {name}, the measurement's status is '{outcomes.status}'",
            )
            require(
                outcomes.top1 is None and outcomes.top5 is None,
                f"if the model {name}, the measurement has results",
            )
        require(not changed(before, model), f"if the model {name}, it changed: {changed(before, model)}")


@rule("fail as a whole if a later batch fails")
def failure_in_a_later_batch_fails_the_measurement(case: AttackCase) -> None:
    """The results of earlier batches would cover only a part of the images."""
    (outcomes,) = case.measure(FailsAtSize(case.toy.model, size=4), [0.01], images=10, batch_size=4)
    require(
        outcomes.status.code is StatusCode.failed and outcomes.top1 is None,
        f"the measurement's status is '{outcomes.status}'",
    )


@rule("give each eps the same result as alone", each_norm=True)
def budget_does_not_depend_on_the_others(case: AttackCase) -> None:
    """Several eps in one call may share work, not results."""
    eps = case.eps[::-1]
    together = case.perturb(eps)
    for budget, moved in zip(eps, together, strict=True):
        alone = case.perturb([budget])[0]
        require(
            torch.equal(alone, moved),
            f"eps {eps_text(budget)} gives other images together with other eps than alone",
        )
    twice = case.perturb([case.usual] * 2)
    require(torch.equal(twice[0], twice[1]), f"eps {eps_text(case.usual)} given twice gives two results")
    require(
        torch.equal(twice[0], together[1]),
        f"eps {eps_text(case.usual)} given twice gives other images than once",
    )


@rule("give the same images in any gradient mode", each_norm=True)
def any_gradient_mode(case: AttackCase) -> None:
    """Callers measure inside ``torch.no_grad()`` and ``torch.inference_mode()``."""
    with torch.enable_grad():
        expected = case.perturb()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            moved = case.perturb(images=case.toy.images.clone(), labels=case.toy.labels.clone())
        require(torch.equal(moved, expected), f"inside torch.{mode.__name__}() it gives other images")


@rule("give no gradient to images that require one")
def images_get_no_gradient(case: AttackCase) -> None:
    """The attack must not become part of the caller's graph."""
    images = case.toy.images[:4].clone().requires_grad_()
    moved = case.perturb((0.0, 0.03), images=images, labels=case.toy.labels[:4])
    require(not moved.requires_grad, "its images require a gradient; expected detached ones")
    require(images.grad is None, "it left a gradient in the images' .grad")


@rule("give the same images for the same seed", each_norm=True)
def seed_alone_decides(case: AttackCase) -> None:
    """Only the generator that the attack is given may provide random numbers."""
    results = []
    for other in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(other)
            results.append(case.perturb(seed=5))
    require(torch.equal(*results), "the same seed gave two results; expected only the generator to decide")


@rule("attack the model in eval mode")
def model_is_attacked_in_eval_mode(case: AttackCase) -> None:
    """Dropout in train mode would make the gradients noisy."""
    model = build_mixed_model()
    expected = case.perturb([0.03], model=copy.deepcopy(model).eval())
    require(
        torch.equal(case.perturb([0.03], model=model), expected),
        "a model in train mode gives other images than the same model in eval mode",
    )


@rule("allow a model to write into its images", each_norm=True)
def model_may_write_into_its_images(case: AttackCase) -> None:
    """A normalisation in place must give the same results as one that makes a copy."""
    apart, in_place = (Normalising(case.toy.model, in_place=each) for each in (False, True))
    expected, given = case.perturb([case.usual], model=apart), case.toy.images.clone()
    moved = case.perturb([case.usual], model=in_place, images=given)
    require(torch.equal(moved, expected), "a model that writes into its images gives other images")
    (one,) = case.measure(apart, [case.usual], batch_size=8, search="fixed")
    (other,) = case.measure(in_place, [case.usual], batch_size=8, given=given, search="fixed")
    require(one.status == other.status == OK, f"the measurements are '{one.status}' and '{other.status}'")
    for mine, theirs in ((one.top1, other.top1), (one.top5, other.top5)):
        same = mine is theirs if mine is None or theirs is None else np.array_equal(mine, theirs)
        require(same, "a model that writes into its images gives other results per image")
    require(torch.equal(given, case.toy.images), "the model's writing reached the caller's images")


@rule("give each thread that shares a model its own result")
def threads_share_a_model(case: AttackCase) -> None:
    """The model is random if its dropout is active; all threads share random states, modes and buffers."""
    model = build_mixed_model()
    before = state_of(model)
    images, labels = case.toy.images[:8], case.toy.labels[:8]

    def moved(seed: int) -> Tensor:
        return case.perturb([0.03], model=model, images=images, labels=labels, seed=seed)

    alone = [moved(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(moved, range(4)))
    same = all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    require(same, "four threads got other images than one after the other")
    require(not changed(before, model), f"four threads changed: {changed(before, model)}")


@rule("restore the buffers that the model itself changes")
def buffers_that_follow_the_images_are_restored(case: AttackCase) -> None:
    """Running statistics in train mode, and a buffer that is replaced."""
    model = Adapting(case.toy.model).eval()
    before = state_of(model)
    first = case.perturb([0.03], model=model)
    require(not changed(before, model), f"after it, these had changed: {changed(before, model)}")
    require(torch.equal(case.perturb([0.03], model=model), first), "a second time it gave other images")


@rule("refuse images that are not float32 (N, C, H, W)")
def images_of_another_kind_are_refused(case: AttackCase) -> None:
    """Float64, bytes, or one image without a batch."""
    images = case.toy.images
    for name, given in (("float64", images.double()), ("uint8", (images * 255).byte()), ("3-d", images[0])):
        must_raise(
            lambda given=given: case.perturb([0.03], images=given),  # type: ignore[misc]
            InvalidSettingError,
            "expected float32",
            f"for {name} images",
        )


@rule("refuse an impossible eps, norm or criterion")
def impossible_threat_model_is_refused(case: AttackCase) -> None:
    """This is the user's mistake, so the error is one line that shows the given value."""
    for eps, norm, start in ((-0.1, case.norm, "eps got"), (float("nan"), case.norm, "eps got")):
        must_raise(
            lambda eps=eps, norm=norm: case.perturb([eps], norm=norm),  # type: ignore[misc]
            InvalidSettingError,
            start,
            f"for eps {eps_text(eps)}",
        )
    must_raise(lambda: case.perturb([0.1], norm="l1"), InvalidSettingError, "norm got", "for the norm l1")
    must_raise(
        lambda: type(case.attack).from_settings({"criterion": "top9"}),
        InvalidSettingError,
        "criterion=top9",
        "for criterion=top9 (a __post_init__ calls super().__post_init__())",
    )


@rule("have a spec that builds the same attack again")
def spec_builds_the_same_attack(case: AttackCase) -> None:
    """The spec is label, cache key and test id."""
    attack = case.attack
    if is_registered(attack):
        built = parse_attack(attack.spec)
    else:
        spec = parse_spec(attack.spec if attack.name else f"unregistered{attack.spec}")
        built = type(attack).from_settings(spec.settings)
    require(built == attack, f"it prints as {attack.spec!r}, which builds {built!r:.120}")
    require(str(attack) == attack.spec, f"str() gives {str(attack)!r}; expected its spec {attack.spec!r}")


@rule("take no gradient if it says that it needs none")
def no_gradients_if_none_are_needed(case: AttackCase) -> None:
    """``needs_gradients = False`` lets it run on models without gradients."""
    _, backward = case.passes(case.usual, images=len(case.toy.images))
    require(
        case.attack.needs_gradients or backward == 0,
        f"it has needs_gradients = False and took {backward} gradients",
    )
