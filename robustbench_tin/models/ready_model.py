"""From the options that name a model to a module that takes pixels; no other module does this."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.adapters import Adaptation, other_channels, parse_range
from robustbench_tin.models.classifier import Classifier
from robustbench_tin.models.model_config import ModelConfig
from robustbench_tin.models.normalisation import NAMED, channels, normalized, own_normalisation
from robustbench_tin.models.trained_backbone import is_trained_backbone, load_trained_backbone
from robustbench_tin.models.user_model import UserModel, load_user_model, weights_digest
from robustbench_tin.options import either
from robustbench_tin.specs import parse_number

AUTO = "auto"
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of images for a model.

    Attributes:
        mean: mean per channel, or one for all, in units of the pixel range [0, 1]; empty for no change, or
            for a backbone's own.
        std: standard deviation, likewise.
        auto: take both from the model's own settings.
    """

    mean: Numbers = ()
    std: Numbers = ()
    auto: bool = False

    def settled(self, own: UserModel, images: Tensor) -> Normalisation:
        """The normalisation with the numbers of the model's own settings, if ``auto`` is set.

        Raises:
            InvalidSettingError: if the model has no such settings.
        """
        if not self.auto or isinstance(own.module, Classifier):
            return replace(self, auto=False)

        def ask(few: Tensor) -> object:
            with torch.no_grad():
                return own.module(few)

        found = own_normalisation(own.module, images, ask)
        if found is None:
            raise InvalidSettingError(
                f"normalize got 'auto', but model '{own.name}' has no settings with mean and std; give"
                f" --normalize {' or '.join(NAMED)}, or --mean and --std"
            )
        mean, std = found
        return (
            Normalisation()
            if not any(mean) and all(value == 1 for value in std)
            else Normalisation(mean, std)
        )

    def around(self, module: nn.Module) -> nn.Module:
        """The model with this normalisation; it replaces a backbone's own."""
        if not self.mean:
            return module
        if not isinstance(module, Classifier):
            return normalized(module, self.mean, self.std)
        for name in ("mean", "std"):
            values = channels(name, getattr(self, name))
            setattr(module, name, values.to(getattr(module, name).device))
        return module


def asked_normalisation(asked: ModelConfig) -> Normalisation:
    """The normalisation that the options select.

    Raises:
        InvalidSettingError: for options that exclude each other, and for invalid values.
    """
    if asked.normalize is not None:
        if asked.mean is not None or asked.std is not None:
            raise InvalidSettingError("got both --normalize and --mean or --std; give one of them")
        if asked.normalize == AUTO:
            return Normalisation(auto=True)
        if asked.normalize not in NAMED:
            raise InvalidSettingError(f"normalize got '{asked.normalize}'; expected {either((*NAMED, AUTO))}")
        return Normalisation(*NAMED[asked.normalize])
    mean, std = _numbers("mean", asked.mean), _numbers("std", asked.std)
    if bool(mean) != bool(std):
        given, other = ("mean", "std") if mean else ("std", "mean")
        raise InvalidSettingError(f"got {given} without {other}; give both, for example mean 0.5 and std 0.5")
    for name, values in (("mean", mean), ("std", std)):
        if values:
            channels(name, values)
    return Normalisation(mean, std)


def asked_adaptation(asked: ModelConfig) -> Adaptation:
    """The adapters that the options select.

    Raises:
        InvalidSettingError: for options that exclude each other, and for invalid values.
    """
    found = Adaptation(
        output=asked.output,
        batch_size=asked.batch_size,
        pad=asked.pad,
        grayscale=asked.grayscale,
        value_range=None if asked.value_range is None else parse_range(asked.value_range),
    )
    found.require_alone(asked.normalize is not None or asked.mean is not None)
    return found


def load_model(
    spec: str, weights: Path | None, asked: ModelConfig, image_size: int, classes: int, device: str
) -> UserModel:
    """Build or read a trained model, without a normalisation except a backbone's own.

    Args:
        spec: ``package.module:factory``, ``FILE.py:factory``, a file that holds a model, a backbone's name,
            ``timm:NAME`` or ``hf-hub:NAME``.
        weights: weights file of a factory's model or a backbone; None if the model has its own.
        asked: the other options.
        image_size: side of the images in pixels.
        classes: number of classes of the data.
        device: device of the model.

    Raises:
        RobustTinError: if there is no such model, or its weights cannot be loaded.
    """
    if not is_trained_backbone(spec):
        if asked.pretrained:
            raise InvalidSettingError(
                f"model '{spec}' is not a backbone, which --pretrained needs; expected a backbone's name or"
                " timm:NAME"
            )
        return load_user_model(spec, weights, device, asked.arguments)
    if asked.model_args:
        raise InvalidSettingError(f"model '{spec}' is a backbone, not a function; leave --model-arg out")
    classifier = load_trained_backbone(spec, weights, asked.pretrained, image_size, classes)
    digest = weights_digest(classifier)
    return UserModel(classifier.to(device), classifier.backbone, digest, notes=classifier.notes)


def ready_model(
    spec: str,
    weights: Path | None,
    asked: ModelConfig,
    images: Tensor,
    classes: int,
    device: str,
) -> tuple[UserModel, Normalisation]:
    """A trained model that takes pixels, and the normalisation that was put around it.

    Args:
        spec: as in :func:`load_model`.
        weights: as in :func:`load_model`.
        asked: the other options.
        images: a few images, float32 ``(N, C, H, W)`` in [0, 1], on the device of the images.
        classes: number of classes of the data.
        device: device of the model.

    Raises:
        RobustTinError: as :func:`load_model`, and if the model does not accept such images.
    """
    normalisation, adaptation = asked_normalisation(asked), asked_adaptation(asked)
    own = load_model(spec, weights, asked, int(images.shape[-1]), classes, device)
    original = None if own.original is None else adaptation.inside(own.original)
    own = replace(own, module=adaptation.inside(own.module), original=original)
    shown = other_channels(images) if adaptation.grayscale else images
    own = own.confirmed(shown)
    normalisation = normalisation.settled(own, shown)
    return replace(own, module=adaptation.outside(normalisation.around(own.module))), normalisation


def _numbers(setting: str, text: str | None) -> Numbers:
    if text is None:
        return ()
    try:
        return tuple(parse_number(item) for item in text.split(","))
    except ValueError:
        raise InvalidSettingError(
            f"{setting} got '{text}'; expected one number, or one per channel: 0.485,0.456,0.406"
        ) from None
