"""``art:CLASS``: any evasion attack on image classifiers of the Adversarial Robustness Toolbox.

Nicolae, Sinn, Tran, Buesser, Rawat, Wistuba, Zantedeschi, Baracaldo, Chen, Ludwig, Molloy and Edwards, 2018,
"Adversarial Robustness Toolbox v1.0.0", arXiv 1807.01069. ART works on NumPy arrays, so every pass
copies its images; its value here is breadth, and an independent opinion.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.bridge import Bridge, Seen
from robustbench_tin.attacks.bridge_settings import bridged, fits, parameters_of
from robustbench_tin.errors import UnknownNameError
from robustbench_tin.threat import NORMS, Ball

_SET_BY_US = frozenset(
    {"classifier", "estimator", "estimator_orig", "eps", "norm", "batch_size", "targeted", "summary_writer"}
    | {"verbose", "nb_classes"}
)
# Evasion attacks, but not of an image classifier by a small change: of video, tables, detectors; those that
# need a guide image or a target; and a whole ensemble of rotations and hues that no ball holds.
_UNFIT = frozenset(
    {"FeatureAdversariesNumpy", "FeatureAdversariesPyTorch", "LowProFool", "OverTheAirFlickeringPyTorch"}
    | {"OverloadPyTorch", "TargetedUniversalPerturbation", "CompositeAdversarialAttackPyTorch"}
)
_IGNORE_LABELS = frozenset(
    {"DeepFool", "NewtonFool", "SaliencyMapMethod", "UniversalPerturbation", "VirtualAdversarialMethod"}
)
# Where ``norm`` cannot be chosen, the one that ``eps`` is meant in; Wasserstein's is another ball altogether.
_OWN_NORM = {"BasicIterativeMethod": ("linf",), "VirtualAdversarialMethod": ("l2",)}
_UNSEEDED = frozenset({"BoundaryAttack", "HopSkipJump"})


class ArtAttack(Bridge):
    """An evasion attack of ART, given the model's logits under cross-entropy."""

    package: ClassVar[str] = "adversarial-robustness-toolbox"
    set_by_us: ClassVar[frozenset[str]] = _SET_BY_US
    taken: ClassVar[frozenset[str]]

    def remarks(self, classes: int) -> Sequence[str]:
        unseeded = "; it draws from a generator that cannot be seeded, so its figures vary from run to run"
        first = super().remarks(classes)[0]
        return (first + (unseeded if self.library_class.__name__ in _UNSEEDED else ""),)

    def build(self, seen: Seen, shape: Sequence[int], classes: int, norm: str, eps: float) -> Any:
        given = self.arguments(eps)
        chosen = {"norm": np.inf if norm == "linf" else 2, "targeted": False, "verbose": False}
        given |= {name: value for name, value in chosen.items() if name in self.taken}
        return self.library_class(_classifier(seen, shape, classes), **given)

    def move(self, built: Any, seen: Seen, labels: Tensor, ball: Ball) -> Tensor:
        if "batch_size" in self.taken:
            built.set_params(batch_size=len(labels))
        images = ball.images.cpu().numpy()
        # Where labels are ignored they would be taken for targets.
        answers = None if self.ignores_labels else _one_hot(labels, built.estimator.nb_classes)
        on_card = torch.cuda.device(seen.device) if seen.device.type == "cuda" else nullcontext()
        with on_card:
            return torch.from_numpy(np.asarray(built.generate(images, answers)))


@functools.cache
def find(name: str) -> type[ArtAttack]:
    """The attack ``art:name``.

    Raises:
        UnknownNameError: where ART has no such evasion attack on image classifiers, with the close names.
    """
    targets = _targets()
    if name not in targets:
        raise UnknownNameError("evasion attack", f"art:{name}", [f"art:{each}" for each in targets])
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
        ignores_labels=name in _IGNORE_LABELS,
    )


@functools.cache
def _targets() -> dict[str, type[Any]]:
    """ART's classes that attack an image classifier made with torch, and return images."""
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
    """Patches, for one, come back as a pair of patch and mask."""
    return inspect.unwrap(kind.generate).__annotations__.get("return") in ("np.ndarray", np.ndarray)


def _classifier(seen: Seen, shape: Sequence[int], classes: int) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        seen,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(shape),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if seen.device.type == "cuda" else "cpu",
    )


def _one_hot(labels: Tensor, classes: int) -> Any:
    return nn.functional.one_hot(labels, classes).float().cpu().numpy()
