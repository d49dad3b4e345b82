"""The form of an open data set: arrays of uint8 images with labels and boxes."""

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
    """One part of a data set (train, val or test), with image ``i`` in row ``i`` of each array.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, contiguous, often memory-mapped and read-only.
        labels: int64 ``(N,)``, indices into the data set's classes; :data:`UNLABELLED` if unknown.
        boxes: int32 ``(N, 4)`` or None: ``x0, y0, x1, y1`` of the object in pixels, corners included, as
            annotated. A box with ``x1 <= x0`` or ``y1 <= y0`` is degenerate; all -1 means no box.
        ids: the images' names at their source (file names, for example), or None.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.int32] | None = None
    ids: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that depend on the images and labels, and on their order."""
        digest = hashlib.blake2b(repr(self.images.shape).encode(), digest_size=8)
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").data)
        return digest.hexdigest()

    def take(self, rows: npt.NDArray[np.int64]) -> Split:
        """The given rows, in that order, as arrays of their own."""
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
        name: its canonical name (``demo``, ``tiny-imagenet``, ``folder``).
        source: its place, for the user (a path, or ``drawn from seed 0``).
        classes: class ids in label order (``n01443537``).
        class_names: a readable name for each class (``goldfish, Carassius auratus``).
        train: labelled training images; empty if the data set is only for evaluation.
        val: labelled images for evaluation; nothing is trained on them.
        test: images without labels, or None.
        fingerprint: 16 hexadecimal digits that change if the images, labels, boxes or the chosen part of them
            change.
        default_epochs: default number of training epochs.
        quick: True for a data set meant for a first look; costly backbones then train for a part of the
            default epochs.
        default_eval_images: default number of validation images, if the user chooses no part; None for all.
        banner: a line that the user must not miss, shown first.
        notes: lines to show the user once (counts, skipped files).
        whole: class ids in label order of the data set that this is a part of; empty if it is whole.
        to_train: advice on how to add training images, for the error if there are none.
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
        """Refuse training on a data set without training images.

        Raises:
            DataError: if it has no training images.
        """
        if not len(self.train):
            raise DataError(
                f"data set '{self.name}' has no training images here, so it is only for evaluation;"
                f" to train, {self.to_train or 'name a data set with training images'}"
            )

    def with_note(self, note: str) -> Dataset:
        """The same data set with one more note for the user."""
        return replace(self, notes=(*self.notes, note))
