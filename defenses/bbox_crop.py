"""Bounding boxes as additional training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from robustbench_tin.data import boxes
from robustbench_tin.data.base import Split
from robustbench_tin.defenses.base import Defense
from robustbench_tin.errors import DataError
from robustbench_tin.training.context import Context


@dataclass(frozen=True)
class BBoxCrop(Defense):
    """Train on each image twice: unchanged, and as its box, cropped and padded to the image's size.

    The originals stay in the training set, because images at test time have no boxes. Degenerate boxes are
    skipped and counted. This is the crop of the Tiny ImageNet report from which this project started.

    Attributes:
        fill: enlarge the box to the image's size, without keeping its proportions, instead of padding it with
            black.
    """

    name: ClassVar[str] = "bbox-crop"
    relative_cost: ClassVar[float] = 2.0

    fill: bool = False

    def check(self, train: Split) -> None:
        if train.boxes is None:
            raise DataError(
                "defense 'bbox-crop' got a data set without bounding boxes; use tiny-imagenet or demo,"
                " or leave this defense out"
            )

    def prepare(self, train: Split, context: Context) -> Split:
        assert train.boxes is not None
        usable = boxes.usable(train.boxes, *train.images.shape[-2:])
        skipped = int((~usable & boxes.given(train.boxes)).sum())
        context.note(f"bbox-crop: {usable.sum():,} crops added, {skipped:,} degenerate boxes skipped")
        crops = boxes.crop(train.images[usable], train.boxes[usable], fill=self.fill)
        return Split(
            images=np.concatenate([train.images, crops]),
            labels=np.concatenate([train.labels, train.labels[usable]]),
        )
