"""RandAugment: a few random changes of each image, all with the same strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from robustbench_tin.defenses.base import Defense
from robustbench_tin.training.context import Context

_STRONGEST = 30

# An operation takes images and a strength from -1 to 1; the ranges are torchvision's.
_Operation = Callable[[Tensor, float], Tensor]


def _affine(images: Tensor, **moved: Any) -> Tensor:
    settings: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    result: Tensor = functional.affine(
        images, **{**settings, **moved}, interpolation=InterpolationMode.BILINEAR
    )
    return result


def _degrees(shear: float) -> float:
    return float(torch.tensor(0.3 * shear, dtype=torch.float32).atan().rad2deg())


def _pixels(images: Tensor, part: float) -> int:
    return round(150 / 331 * images.shape[-1] * part)


# The sign of the strength is random for signed operations; the others have one direction.
_SIGNED: tuple[_Operation, ...] = (
    lambda images, strength: _affine(images, shear=[_degrees(strength), 0.0]),
    lambda images, strength: _affine(images, shear=[0.0, _degrees(strength)]),
    lambda images, strength: _affine(images, translate=[_pixels(images, strength), 0]),
    lambda images, strength: _affine(images, translate=[0, _pixels(images, strength)]),
    lambda images, strength: functional.rotate(
        images, 30 * strength, interpolation=InterpolationMode.BILINEAR
    ),
    lambda images, strength: functional.adjust_brightness(images, 1 + 0.9 * strength),
    lambda images, strength: functional.adjust_saturation(images, 1 + 0.9 * strength),
    lambda images, strength: functional.adjust_contrast(images, 1 + 0.9 * strength),
    lambda images, strength: functional.adjust_sharpness(images, 1 + 0.9 * strength),
)
_UNSIGNED: tuple[_Operation, ...] = (
    lambda images, strength: images,
    lambda images, strength: functional.posterize(images, 8 - round(4 * strength)),
    lambda images, strength: functional.solarize(images, 1 - strength),
    lambda images, strength: functional.autocontrast(images),
    lambda images, strength: functional.equalize(images),
)
_OPERATIONS = (*_SIGNED, *_UNSIGNED)


@dataclass(frozen=True)
class RandAugment(Defense):
    """Change each training image by random operations with a fixed strength.

    Cubuk, Zoph, Shlens and Le, 2019, "RandAugment: Practical automated data augmentation with a reduced
    search space", arXiv 1909.13719, with torchvision's fourteen operations and their ranges. Each image gets
    its own random operations; images with the same operation are changed together.

    Attributes:
        ops: number of operations per image, at least 1.
        magnitude: their strength, 0 to 30.
    """

    name: ClassVar[str] = "randaugment"

    ops: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        self.require(self.ops >= 1, "ops", "1 or more")
        self.require(0 <= self.magnitude <= _STRONGEST, "magnitude", f"0 to {_STRONGEST}")

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        # Random numbers come from the host, so that no device has to report them.
        dice = context.host_generator(self.name)
        for _ in range(self.ops):
            drawn = torch.randint(len(_OPERATIONS), (len(images),), generator=dice)
            signs = torch.randint(2, (len(images),), generator=dice) * 2 - 1
            signs[drawn >= len(_SIGNED)] = 1
            changed = images.clone()
            for number, sign in sorted(set(zip(drawn.tolist(), signs.tolist(), strict=True))):
                rows = ((drawn == number) & (signs == sign)).nonzero().squeeze(1)
                rows = rows.to(images.device, non_blocking=True)
                strength = sign * self.magnitude / _STRONGEST
                changed[rows] = _OPERATIONS[number](images[rows], strength)
            images = changed
        return images.clamp(0, 1), labels
