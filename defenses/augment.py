"""Random flips, rotations, zooms, shifts and shears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_tin.data.augmentation import random_affine
from robustbench_tin.defenses.base import Defense
from robustbench_tin.training.context import Context


@dataclass(frozen=True)
class Augment(Defense):
    """Mirror, rotate, zoom, shift and shear each training image by random amounts, on the device.

    Attributes:
        flip: mirror each image left to right with probability 1/2.
        rotation: largest rotation in either direction, in degrees, at most 180.
        zoom: largest change of scale, below 1: 0.1 draws from [0.9, 1.1].
        shift: largest shift along each axis, as a fraction of the image's side, at most 1.
        shear: largest slant of the vertical in either direction, in degrees, below 90.
    """

    name: ClassVar[str] = "augment"

    flip: bool = True
    rotation: float = 10.0
    zoom: float = 0.1
    shift: float = 0.1
    shear: float = 0.0

    def __post_init__(self) -> None:
        self.require(0 <= self.rotation <= 180, "rotation", "0 to 180 degrees")
        self.require(0 <= self.zoom < 1, "zoom", "0 to below 1")
        self.require(0 <= self.shift <= 1, "shift", "0 to 1")
        self.require(0 <= self.shear < 90, "shear", "0 to below 90 degrees")

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        moved = random_affine(
            images,
            context.generator,
            rotation=self.rotation,
            zoom=self.zoom,
            shift=self.shift,
            shear=self.shear,
            flip=self.flip,
        )
        return moved, labels
