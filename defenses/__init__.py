"""Defenses: ways of training and running a classifier; they can be combined.

This module exports every name that a defense's author needs::

    from robustbench_tin import defenses

    @defenses.register("my-defense")
    @dataclass(frozen=True)
    class MyDefense(defenses.Defense):
        strength: float = 0.1

        def augment(self, images, labels, context): ...

``docs/how-to/write-a-defense.md`` shows how to write, check and use one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_tin.errors import DataError, InvalidSettingError
from robustbench_tin.lazy import lazy_names
from robustbench_tin.registry import Registry
from robustbench_tin.specs import parse_spec

if TYPE_CHECKING:
    from robustbench_tin.data.augmentation import soft_labels
    from robustbench_tin.data.base import Split
    from robustbench_tin.defenses.adversarial_training import (
        AdversarialTraining,
        BallTraining,
        MultiStepTraining,
        eval_mode,
        image_gradient,
    )
    from robustbench_tin.defenses.base import Defense, NoiseVote
    from robustbench_tin.defenses.input_transform import InputTransform, softly_rounded, straight_through
    from robustbench_tin.threat import NORMS, Ball, ThreatModel
    from robustbench_tin.training.context import Context, Gradients, Objective
    from robustbench_tin.training.objective import classification_loss

__all__ = [
    "NORMS",
    "AdversarialTraining",
    "Ball",
    "BallTraining",
    "Context",
    "DataError",
    "Defense",
    "Gradients",
    "InputTransform",
    "InvalidSettingError",
    "MultiStepTraining",
    "NoiseVote",
    "Objective",
    "Split",
    "ThreatModel",
    "classification_loss",
    "eval_mode",
    "image_gradient",
    "parse_defense",
    "register",
    "registry",
    "soft_labels",
    "softly_rounded",
    "straight_through",
]

registry: Registry[type[Defense]] = Registry(
    "defense",
    group="robustbench_tin.defenses",
    expected="robustbench_tin.defenses.base:Defense",
    checked_by="robustbench_tin.defenses.plugin_check:problem_of",
    builtin={
        "none": "robustbench_tin.defenses.none:NoDefense",
        "augment": "robustbench_tin.defenses.augment:Augment",
        "randaugment": "robustbench_tin.defenses.randaugment:RandAugment",
        "mixup": "robustbench_tin.defenses.mixup:Mixup",
        "cutmix": "robustbench_tin.defenses.cutmix:CutMix",
        "random-erasing": "robustbench_tin.defenses.random_erasing:RandomErasing",
        "bbox-crop": "robustbench_tin.defenses.bbox_crop:BBoxCrop",
        "fgsm-static": "robustbench_tin.defenses.fgsm_static:FGSMStatic",
        "fgsm-at": "robustbench_tin.defenses.fgsm_at:FGSMAdversarialTraining",
        "n-fgsm": "robustbench_tin.defenses.n_fgsm:NoiseFGSM",
        "free-at": "robustbench_tin.defenses.free_at:FreeAdversarialTraining",
        "pgd-at": "robustbench_tin.defenses.pgd_at:PGDAdversarialTraining",
        "trades": "robustbench_tin.defenses.trades:TRADES",
        "mart": "robustbench_tin.defenses.mart:MART",
        "awp": "robustbench_tin.defenses.awp:AdversarialWeightPerturbation",
        "jpeg": "robustbench_tin.defenses.jpeg:JPEG",
        "bit-depth": "robustbench_tin.defenses.bit_depth:BitDepth",
        "blur": "robustbench_tin.defenses.blur:Blur",
        "random-resize": "robustbench_tin.defenses.random_resize:RandomResize",
        "smoothing": "robustbench_tin.defenses.smoothing:Smoothing",
    },
)
register = registry.register


def parse_defense(text: str) -> Defense:
    """Build a defense from its spec; ``+`` combines from left to right: ``bbox-crop+fgsm-at:eps=0.03``.

    Args:
        text: a spec, or several joined by ``+``.

    Returns:
        The defense, which prints as its canonical spec.

    Raises:
        RobustTinError: for an unknown name or setting, a value that does not fit, or two losses.

    >>> print(parse_defense("bbox-crop+fgsm-at:eps=4/255"))
    bbox-crop+fgsm-at:eps=4/255
    """
    parts = []
    for part in text.split("+"):
        spec = parse_spec(part, registry.prefixes)
        parts.append(registry.get(spec.name).from_settings(spec.settings))
    if len(parts) == 1:
        return parts[0]
    names = [part.name for part in parts]
    if "none" in names:
        raise InvalidSettingError(
            f"defense got '{text}'; 'none' cannot be combined with another defense, leave it out"
        )
    from robustbench_tin.defenses.combination import Combination

    return Combination(tuple(parts))


# All of these need torch; naming a registry must not import it.
__getattr__, __dir__ = lazy_names(
    __name__,
    __all__,
    {
        "robustbench_tin.data.augmentation": ["soft_labels"],
        "robustbench_tin.data.base": ["Split"],
        "robustbench_tin.defenses.adversarial_training": [
            "AdversarialTraining",
            "BallTraining",
            "MultiStepTraining",
            "eval_mode",
            "image_gradient",
        ],
        "robustbench_tin.defenses.base": ["Defense", "NoiseVote"],
        "robustbench_tin.defenses.input_transform": ["InputTransform", "softly_rounded", "straight_through"],
        "robustbench_tin.threat": ["NORMS", "Ball", "ThreatModel"],
        "robustbench_tin.training.context": ["Context", "Gradients", "Objective"],
        "robustbench_tin.training.objective": ["classification_loss"],
    },
)
