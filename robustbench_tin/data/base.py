"""What a data set is, once it is open: arrays of uint8 images with labels and boxes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from robustbench_tin.errors import DataError

UNLABELLED = -1


@dataclass(frozen=True)
class Split:
    """One part of a data set (train, val or test), image ``i`` in row ``i`` of each array.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, contiguous, often memory-mapped and read-only.
        labels: int64 ``(N,)``, indices into the data set's classes; :data:`UNLABELLED` where unknown.
        boxes: int32 ``(N, 4)`` or None: ``x0, y0, x1, y1`` of the object in pixels, corners included,
            as annotated; a box with ``x1 <= x0`` or ``y1 <= y0`` is degenerate. All -1: no box.
        ids: what names image ``i`` at its source (a file name, say), or None.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.int32] | None = None
    ids: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of its images and labels, in their order."""
        digest = hashlib.blake2b(repr(self.images.shape).encode(), digest_size=8)
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").data)
        return digest.hexdigest()

    def take(self, rows: npt.NDArray[np.int64]) -> Split:
        """The rows asked for, in that order, as arrays of their own."""
        return Split(
            images=np.ascontiguousarray(self.images[rows]),
            labels=self.labels[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
            ids=None if self.ids is None else [self.ids[row] for row in rows],
        )


@dataclass(frozen=True)
class Dataset:
    """An open data set.

    Attributes:
        name: how it was asked for, canonical (``demo``, ``tiny-imagenet``, ``folder``).
        source: where it lies, for people (a path, or ``drawn from seed 0``).
        classes: the class ids in label order (``n01443537``).
        class_names: a readable name a class (``goldfish, Carassius auratus``).
        train: labelled training images; none if the data set can only be measured on.
        val: labelled images that nothing is trained on.
        test: images without labels, or None.
        fingerprint: 16 hexadecimal digits that change when the images, labels, boxes or the chosen
            part of them change.
        default_epochs: how long to train on it where the user does not say.
        quick: meant for a first look; costly backbones train for a part of the default epochs.
        default_eval_images: how many validation images to measure where the user chooses no part;
            None: all.
        banner: a line that must not be missed, shown first.
        notes: lines worth showing once (counts, skipped files).
        whole: class ids in label order of the data set that this is a part of; empty: it is whole.
        to_train: what gives it training images, for the error if it has none.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    train: Split
    val: Split
    fingerprint: str
    test: Split | None = None
    default_epochs: int = 10
    quick: bool = False
    default_eval_images: int | None = None
    banner: str | None = None
    notes: tuple[str, ...] = field(default=())
    whole: tuple[str, ...] = ()
    to_train: str = ""

    @property
    def image_size(self) -> int:
        """Height and width of its square images, in pixels."""
        return int(self.val.images.shape[-1])

    def require_train(self) -> None:
        """Refuse to train on a data set that can only be measured on.

        Raises:
            DataError: if it has no training images.
        """
        if not len(self.train):
            raise DataError(
                f"data set '{self.name}' has no training images here, so a model can only be measured on it;"
                f" to train, {self.to_train or 'name a data set with training images'}"
            )

    def with_note(self, note: str) -> Dataset:
        """The same data set with one more line to show."""
        return replace(self, notes=(*self.notes, note))
