"""The images for saliency: a random sample in three versions: clean, cropped to the boxes, adversarial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_tin.benchmarks.evidence.choices import Kind
from robustbench_tin.benchmarks.evidence.saliency import Box
from robustbench_tin.data import boxes
from robustbench_tin.data.base import Split


@dataclass(frozen=True)
class BoxedImages:
    """One version of the sampled images.

    Attributes:
        kind: the version.
        rows: indices among the evaluated images, int64 ``(n,)``.
        images: uint8 ``(n, 3, H, W)``.
        boxes: box of the object in each image; None without boxes.
    """

    kind: Kind
    rows: npt.NDArray[np.int64]
    images: npt.NDArray[np.uint8]
    boxes: Sequence[Box] | None

    def take(self, kept: npt.NDArray[np.bool_]) -> BoxedImages:
        """The images that the mask keeps."""
        found = (
            None if self.boxes is None else [box for box, keep in zip(self.boxes, kept, strict=True) if keep]
        )
        return BoxedImages(self.kind, self.rows[kept], self.images[kept], found)


def sample_rows(split: Split, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Sorted indices of random images; only images with usable boxes if the split has boxes.

    Args:
        split: the evaluated images.
        count: maximum number of images.
        seed: seed of the choice.
    """
    order = np.random.default_rng(seed).permutation(len(split))
    if has_boxes(split):
        assert split.boxes is not None
        order = order[boxes.usable(split.boxes, *split.images.shape[-2:])[order]]
    return np.sort(order[:count])


def has_boxes(split: Split) -> bool:
    """Whether any image has a usable box."""
    if split.boxes is None:
        return False
    return bool(boxes.usable(split.boxes, *split.images.shape[-2:]).any())


def clean_images(split: Split, rows: npt.NDArray[np.int64]) -> BoxedImages:
    """The images without any change."""
    found = None
    if has_boxes(split):
        assert split.boxes is not None
        found = _tuples(boxes.inside(split.boxes[rows], *split.images.shape[-2:]))
    return BoxedImages(Kind.clean, rows, np.asarray(split.images[rows]), found)


def cropped_images(split: Split, rows: npt.NDArray[np.int64]) -> BoxedImages | None:
    """Each object's box alone, padded with black as ``bbox-crop`` trains on it; None without boxes."""
    if not has_boxes(split):
        return None
    assert split.boxes is not None
    images = boxes.crop(np.asarray(split.images[rows]), split.boxes[rows])
    moved = boxes.padded(split.boxes[rows], *split.images.shape[-2:])
    return BoxedImages(Kind.crop, rows, images, _tuples(moved))


def _tuples(found: npt.NDArray[np.int32]) -> list[Box]:
    return [(int(x0), int(y0), int(x1), int(y1)) for x0, y0, x1, y1 in found]
