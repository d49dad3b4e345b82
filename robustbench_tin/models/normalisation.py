"""Normalisation around a model: adding it, and detecting that a model lacks it.

Every model here takes pixels in [0, 1]. Published networks expect normalised images, and name the mean and
deviation in settings of their own: timm in ``pretrained_cfg``, Hugging Face in the image processor's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_tin.devices import device_of, images_device
from robustbench_tin.errors import InvalidSettingError

NAMED: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Means and deviations by the names that ``--normalize`` accepts."""

Values = float | Sequence[float] | Tensor


class Normalized(nn.Module):
    """A model with normalisation in front of it.

    Args:
        model: maps normalised images to logits.
        mean: mean per channel, or one for all channels, in units of the pixel range [0, 1].
        std: standard deviation per channel, or one for all channels, in the same units, above 0.

    Raises:
        InvalidSettingError: for invalid values, or if their numbers differ.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Values, std: Values) -> None:
        super().__init__()
        self.model = model
        device = images_device(device_of(model))
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, channels(name, values).to(device), persistent=False)
        counts = self.mean.numel(), self.std.numel()
        if 1 not in counts and counts[0] != counts[1]:
            raise InvalidSettingError(
                f"mean has {counts[0]} values and std {counts[1]}; expected the same number, one per channel"
            )

    def require_channels(self, channels: int) -> None:
        """Refuse images with another number of channels, which broadcasting would multiply.

        Raises:
            InvalidSettingError: gives the number of channels.
        """
        for name in ("mean", "std"):
            count = getattr(self, name).numel()
            if count not in (1, channels):
                raise InvalidSettingError(
                    f"{name} got {count} values; expected 1 or {channels}, one per channel"
                )

    def is_by(self, mean: Sequence[float], std: Sequence[float]) -> bool:
        """True if it normalises by these values, one per channel."""
        for own, others in ((self.mean, mean), (self.std, std)):
            values = own.flatten().tolist() * (len(others) if own.numel() == 1 else 1)
            if len(values) != len(others) or any(
                abs(value - other) > 1e-3 for value, other in zip(values, others, strict=True)
            ):
                return False
        return True

    def forward(self, images: Tensor) -> Tensor:
        """Logits of pixels in [0, 1]."""
        logits: Tensor = self.model((images - self.mean) / self.std)
        return logits


def normalized(model: nn.Module, mean: Values | None, std: Values | None) -> nn.Module:
    """The model with normalisation in front of it; the model itself if neither value is given.

    Raises:
        InvalidSettingError: if only one of them is given, and for invalid values.
    """
    if mean is None and std is None:
        return model
    if mean is None or std is None:
        given, other = ("std", "mean") if mean is None else ("mean", "std")
        raise InvalidSettingError(f"got {given} without {other}; give both, for example mean 0.5 and std 0.5")
    return Normalized(model, mean, std)


def own_normalisation(
    model: nn.Module, images: Tensor, ask: Callable[[Tensor], object]
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The mean and deviation that a model's settings require.

    Args:
        model: the model whose modules are searched.
        images: as in :func:`lacking_normalisation`.
        ask: as in :func:`lacking_normalisation`.

    Returns:
        None if no settings are found; a mean of 0 and a deviation of 1 if the model normalises by itself.
    """
    for module in model.modules():
        expected = _expected(module)
        if expected is not None:
            needed = not _normalises(model) and _gets_pixels(model, module, images, ask)
            return expected if needed else ((0.0,), (1.0,))
    return None


def lacking_normalisation(model: nn.Module, images: Tensor, ask: Callable[[Tensor], object]) -> str | None:
    """A warning for a model whose settings require normalised images but that gets plain pixels.

    Args:
        model: the model whose modules are searched.
        images: some images, float32 ``(N, C, H, W)``.
        ask: calls the model with two images of that shape, if that is needed to decide.

    Returns:
        None if nothing is known about the model, or the images are normalised on the way.
    """
    for module in model.modules():
        expected = _expected(module)
        if expected is None:
            continue
        mean, std = expected
        if all(value == 0 for value in mean) and all(value == 1 for value in std):
            return None
        told = [", ".join(f"{value:g}" for value in values) for values in (mean, std)]
        asked = (
            f"{type(module).__name__}'s settings require images normalised with mean ({told[0]}) and std"
            f" ({told[1]})"
        )
        if isinstance(model, Normalized) and not model.is_by(mean, std):
            return f"{asked}, but others were given: give these, unless it was trained otherwise"
        if _normalises(model) or not _gets_pixels(model, module, images, ask):
            return None
        return (
            f"{asked}, but no normalisation was found: give mean and std (--mean, --std), unless it was"
            " trained on pixels in [0, 1]"
        )
    return None


def channels(name: str, values: Values) -> Tensor:
    """A mean or a deviation as float32 ``(1, C, 1, 1)``.

    Raises:
        InvalidSettingError: for invalid values, or values in another unit.
    """
    try:
        tensor = torch.as_tensor(values).detach().to(torch.float32).reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidSettingError(
            f"{name} got {str(values)[:60]}; expected one number, or one per channel: 0.485,0.456,0.406"
        ) from error
    low, high = (0.0, 255.0) if name == "std" else (-255.0, 255.0)
    bounded = tensor.isfinite() & (tensor >= low) & (tensor <= high)
    if not len(tensor) or not bool(bounded.all()) or (name == "std" and bool((tensor == 0).any())):
        raise InvalidSettingError(
            f"{name} got {str(values)[:60]}; expected numbers in units of the pixel range [0, 1]"
            + (", above 0" if name == "std" else "")
        )
    if bool((tensor > 2).any()):
        raise InvalidSettingError(
            f"{name} got {str(values)[:60]}; expected units of the pixel range [0, 1]: divide the values by"
            " 255"
        )
    return tensor.view(1, -1, 1, 1)


def _expected(module: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The mean and deviation that a module's own settings require."""
    for settings in _settings(module):
        for names in (("mean", "std"), ("image_mean", "image_std")):
            with suppress(TypeError, ValueError):
                mean, std = (
                    tuple(float(value) for value in settings[name]) for name in names if name in settings
                )
                return mean, std
    return None


def _settings(module: nn.Module) -> list[Mapping[str, Any]]:
    found = [getattr(module, name, None) for name in ("pretrained_cfg", "default_cfg")]
    for name in ("image_processor", "feature_extractor", "processor"):
        held = getattr(module, name, None)
        found += [held, getattr(held, "image_processor", None)]
    config = getattr(module, "config", None)
    found += [config, _beside(config), _of_torchvision(module)]
    return [each for each in map(_as_mapping, found) if each]


def _beside(config: object) -> object:
    """The image processor's settings in the directory that a Hugging Face model was read from."""
    place = getattr(config, "_name_or_path", None)
    if not isinstance(place, str) or not place:
        return None
    with suppress(OSError, ValueError):
        path = Path(place, "preprocessor_config.json")
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return None


def _of_torchvision(module: nn.Module) -> object:
    """The preprocessing that torchvision's weights require, if a module names them as ``weights``."""
    transforms = getattr(getattr(module, "weights", None), "transforms", None)
    if transforms is None or isinstance(transforms, nn.Module):
        return None
    with suppress(Exception):  # an unrelated attribute may have this name
        return transforms()
    return None


def _as_mapping(settings: object) -> Mapping[str, Any]:
    if isinstance(settings, Mapping):
        return settings
    held = {name: getattr(settings, name, None) for name in ("mean", "std", "image_mean", "image_std")}
    return {name: value for name, value in held.items() if isinstance(value, Sequence) and value}


def _normalises(model: nn.Module) -> bool:
    """True if a module of the model normalises, judged by its name or its buffers."""
    for module in model.modules():
        name = type(module).__name__.lower()
        if name.startswith(("normali", "preprocess")) or "imagenormali" in name:
            return True
        if all(isinstance(getattr(module, part, None), Tensor) for part in ("mean", "std")):
            return True
    return False


def _gets_pixels(
    model: nn.Module, module: nn.Module, images: Tensor, ask: Callable[[Tensor], object]
) -> bool:
    """True if black and white images reach a module of the model unchanged."""
    if module is model:
        return True
    seen: list[Tensor] = []

    def look(_module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.extend(each.detach() for each in (*given, *named.values()) if isinstance(each, Tensor))

    hook = module.register_forward_pre_hook(look, with_kwargs=True)
    try:
        ask(torch.stack([torch.zeros_like(images[0]), torch.ones_like(images[0])]))
    except Exception:  # noqa: BLE001 - the measurement will report the failure
        return False
    finally:
        hook.remove()
    if not seen or len(seen[0]) != 2:
        return False
    black, white = seen[0].float()
    return float(black.abs().max()) < 1e-6 and float((white - 1).abs().max()) < 1e-3
