"""``art:CLASS``: any evasion attack on image classifiers of the Adversarial Robustness Toolbox.

Nicolae, Sinn, Tran, Buesser, Rawat, Wistuba, Zantedeschi, Baracaldo, Chen, Ludwig, Molloy and Edwards, 2018,
"Adversarial Robustness Toolbox v1.0.0", arXiv 1807.01069. ART works on NumPy arrays, so every pass copies its
images. Its value here is the number of its attacks, and an independent implementation.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.external.base import Bridge, CountedModule, require_package
from robustbench_tin.attacks.external.signature import bridged, fits, parameters_of
from robustbench_tin.errors import UnknownNameError
from robustbench_tin.threat import NORMS, Ball

_SET_BY_US = frozenset(
    {"classifier", "estimator", "estimator_orig", "eps", "norm", "batch_size", "targeted", "summary_writer"}
    | {"verbose", "nb_classes"}
)
# Evasion attacks that are not small changes of an image for a classifier: of video, tables, detectors;
# attacks that need a guide image or a target; rotations and hues, which no ball contains; GeoDA, which reads
# and writes files in the working directory.
_UNFIT = frozenset(
    {"FeatureAdversariesNumpy", "FeatureAdversariesPyTorch", "LowProFool", "OverTheAirFlickeringPyTorch"}
    | {"OverloadPyTorch", "TargetedUniversalPerturbation", "CompositeAdversarialAttackPyTorch"}
    | {"GeoDA"}
)
_IGNORE_LABELS = frozenset(
    {"DeepFool", "NewtonFool", "SaliencyMapMethod", "UniversalPerturbation", "VirtualAdversarialMethod"}
)
# The norm of ``eps`` for attacks without a choice of ``norm``; Wasserstein's ball is of another kind.
_OWN_NORM = {"BasicIterativeMethod": ("linf",), "VirtualAdversarialMethod": ("l2",)}
_OF_PROBABILITIES = frozenset({"SimBA", "VirtualAdversarialMethod"})
# Arguments that keep their defaults: a ``norm`` of another kind, and a batch size that must not be larger.
_KEPT = {"Wasserstein": frozenset({"norm"}), "SimBA": frozenset({"batch_size"})}
_ONE_BY_ONE = frozenset({"ShadowAttack"})
# Packages that a class needs in addition to ART, and imports only during the attack.
_NEEDS = {"AutoAttack": "multiprocess"}


class ArtAttack(Bridge):
    """An evasion attack of ART on the model's logits, with cross-entropy."""

    package: ClassVar[str] = "adversarial-robustness-toolbox"
    set_by_us: ClassVar[frozenset[str]] = _SET_BY_US
    taken: ClassVar[frozenset[str]]
    kept: ClassVar[frozenset[str]]

    def build(self, seen: CountedModule, shape: Sequence[int], classes: int, norm: str, eps: float) -> Any:
        given = self.arguments(eps)
        chosen: dict[str, Any] = {
            "norm": np.inf if norm == "linf" else 2,
            "targeted": False,
            "verbose": False,
        }
        # For attacks that run another attack inside.
        chosen["attacker_params"] = {"verbose": False}
        given |= {name: value for name, value in chosen.items() if name in self.taken - self.kept}
        of_probabilities = self.foreign_class.__name__ in _OF_PROBABILITIES
        model = nn.Sequential(seen, nn.Softmax(dim=1)) if of_probabilities else seen
        return self.foreign_class(_classifier(model, seen.device, shape, classes), **given)

    def move(self, built: Any, seen: CountedModule, labels: Tensor, ball: Ball) -> Tensor:
        if "batch_size" in self.taken - self.kept:
            built.set_params(batch_size=len(labels))
        images = ball.images.cpu().numpy()
        # An attack that ignores labels would take them for targets.
        answers = None if self.ignores_labels else _one_hot(labels, built.estimator.nb_classes)
        at_a_time = 1 if self.foreign_class.__name__ in _ONE_BY_ONE else len(images)
        on_card = torch.cuda.device(seen.device) if seen.device.type == "cuda" else nullcontext()
        with on_card, _seeded_states():
            moved = [
                built.generate(images[rows], None if answers is None else answers[rows])
                for start in range(0, len(images), at_a_time)
                for rows in [slice(start, start + at_a_time)]
            ]
        return torch.from_numpy(np.concatenate(moved))


@functools.cache
def find(name: str) -> type[ArtAttack]:
    """The attack ``art:name``.

    Raises:
        InvalidSettingError: if ART is not installed or cannot be imported, or another package that the class
            needs is missing.
        UnknownNameError: if ART has no such evasion attack on image classifiers; it lists the close names.
    """
    for package in ("art", "art.estimators.classification"):  # the second imports scikit-learn too
        require_package(f"art:{name}", package, "pip install adversarial-robustness-toolbox")
    targets = _targets()
    if name not in targets:
        raise UnknownNameError("evasion attack", f"art:{name}", [f"art:{each}" for each in targets])
    if name in _NEEDS:
        require_package(f"art:{name}", _NEEDS[name], f"pip install {_NEEDS[name]}")
    target = targets[name]
    taken = frozenset(each.name for each in parameters_of(target))
    norms = NORMS if "norm" in taken or "eps" not in taken else _OWN_NORM.get(name, NORMS)
    return bridged(
        ArtAttack,
        f"art:{name}",
        target,
        steps=("eps_step",),
        eps_name="eps" if "eps" in taken else None,
        norms=norms,
        taken=taken,
        kept=_KEPT.get(name, frozenset()),
        ignores_labels=name in _IGNORE_LABELS,
        single_step=name == "FastGradientMethod",
    )


@functools.cache
def _targets() -> dict[str, type[Any]]:
    """ART's classes that attack a torch image classifier and return images."""
    from art.attacks import evasion
    from art.attacks.attack import EvasionAttack

    return {
        name: kind
        for name, kind in vars(evasion).items()
        if inspect.isclass(kind)
        and issubclass(kind, EvasionAttack)
        and not inspect.isabstract(kind)
        and "TensorFlow" not in name
        and name not in _UNFIT
        and fits(kind, _SET_BY_US)
        and _takes_a_torch_classifier(kind)
        and _returns_images(kind)
    }


def _takes_a_torch_classifier(kind: type[Any]) -> bool:
    from art.estimators.classification import PyTorchClassifier

    needs = kind._estimator_requirements or ()
    return all(issubclass(PyTorchClassifier, need) for need in needs)


def _returns_images(kind: type[Any]) -> bool:
    """False for attacks that return something else; patches return a pair of patch and mask."""
    return inspect.unwrap(kind.generate).__annotations__.get("return") in ("np.ndarray", np.ndarray)


def _classifier(model: nn.Module, device: torch.device, shape: Sequence[int], classes: int) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(shape),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if device.type == "cuda" else "cpu",
    )


class _SeededState(np.random.RandomState):
    """A generator that, made without a seed, takes one from NumPy's global generator."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(np.random.randint(2**31 - 1) if seed is None else seed)  # noqa: NPY002


@contextmanager
def _seeded_states() -> Iterator[None]:
    """Make the generators that BoundaryAttack and HopSkipJump create without a seed follow from ours."""
    original = np.random.RandomState
    np.random.RandomState = _SeededState  # type: ignore[misc]
    try:
        yield
    finally:
        np.random.RandomState = original  # type: ignore[misc]


def _one_hot(labels: Tensor, classes: int) -> Any:
    return nn.functional.one_hot(labels, classes).float().cpu().numpy()
