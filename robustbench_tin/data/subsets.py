"""A smaller part of a data set: the same one every time, on every machine.

Hashes choose the part, not a random generator, whose stream a library may change. The parts are nested: more
classes, training images or evaluation images only add some. (With more classes and the same number of
evaluation images, each class has fewer.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from robustbench_tin.data.base import Dataset, Split
from robustbench_tin.errors import DataError, InvalidSettingError, UnknownNameError

Rows = npt.NDArray[np.int64]


def subset(
    dataset: Dataset,
    *,
    classes: int | Sequence[str] | None = None,
    train_per_class: int | None = None,
    eval_images: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Choose a part of a data set; None keeps all.

    Args:
        dataset: the data set; its test split stays unchanged.
        classes: number of classes, or their ids or names; label order is kept.
        train_per_class: number of training images per class; a class that has fewer gives all.
        eval_images: number of validation images over all classes, spread evenly.
        seed: another seed gives another part.

    Returns:
        The part, with labels from 0 and a fingerprint of its own.

    Raises:
        InvalidSettingError: for a number below 1 or an empty list.
        UnknownNameError: for a class that does not exist.
        DataError: if the data set has fewer classes or images.

    >>> from robustbench_tin.data import open_dataset
    >>> part = subset(open_dataset("demo"), classes=["house", "fish"], train_per_class=5, eval_images=20)
    >>> part.classes, len(part.train), len(part.val)
    (('fish', 'house'), 10, 20)
    """
    for setting, value in (
        ("classes", classes),
        ("train_per_class", train_per_class),
        ("eval_images", eval_images),
    ):
        if isinstance(value, int) and value < 1:
            raise InvalidSettingError(f"got {setting}={value}; expected 1 or more")
    labels = _choose_classes(dataset, classes, seed)
    train = _ranked(dataset, dataset.train, "train", labels, seed)
    val = _ranked(dataset, dataset.val, "val", labels, seed)
    train_rows = np.sort(_first_of_each(dataset, train, train_per_class))
    val_rows = np.sort(_first_spread(val, eval_images))
    return _part(dataset, labels, train_rows, val_rows, seed)


def _part(dataset: Dataset, labels: list[int], train_rows: Rows, val_rows: Rows, seed: int) -> Dataset:
    whole = (len(dataset.classes), len(dataset.train), len(dataset.val))
    if (len(labels), len(train_rows), len(val_rows)) == whole:
        return dataset
    digest = hashlib.blake2b(dataset.fingerprint.encode(), digest_size=8)
    for chosen in (np.array(labels, "<i8"), train_rows.astype("<i8"), val_rows.astype("<i8")):
        digest.update(f"{len(chosen)}:".encode() + chosen.tobytes())
    note = (
        f"part: {len(labels):,} of {len(dataset.classes):,} classes, {len(train_rows):,} of"
        f" {len(dataset.train):,} training and {len(val_rows):,} of {len(dataset.val):,} validation"
        f" images (seed {seed})"
    )
    return replace(
        dataset,
        classes=tuple(dataset.classes[label] for label in labels),
        class_names=tuple(dataset.class_names[label] for label in labels),
        train=_take(dataset.train, train_rows, labels),
        val=_take(dataset.val, val_rows, labels),
        fingerprint=digest.hexdigest(),
        whole=dataset.whole or dataset.classes,
    ).with_note(note)


def _take(split: Split, rows: Rows, labels: list[int]) -> Split:
    taken = split if len(rows) == len(split) else split.take(rows)  # keeps a whole split memory-mapped
    return replace(taken, labels=np.searchsorted(np.array(labels), taken.labels).astype(np.int64))


def _choose_classes(dataset: Dataset, classes: int | Sequence[str] | None, seed: int) -> list[int]:
    """Labels of the chosen classes, ascending."""
    if classes is None:
        return list(range(len(dataset.classes)))
    if isinstance(classes, int):
        if classes > len(dataset.classes):
            raise DataError(
                f"classes got {classes:,}, but '{dataset.name}' has {len(dataset.classes):,}; choose fewer"
            )
        order = sorted(
            range(len(dataset.classes)), key=lambda label: _key(seed, "class", dataset.classes[label])
        )
        return sorted(order[:classes])
    if isinstance(classes, str):
        classes = [classes]
    if not classes:
        raise InvalidSettingError("got an empty list of classes; expected at least one class id")
    return sorted({_label_of(dataset, name) for name in classes})


def _label_of(dataset: Dataset, wanted: str) -> int:
    """A class by its id, its whole name or one word of its name."""
    if wanted in dataset.classes:
        return dataset.classes.index(wanted)
    word = wanted.strip().lower()
    names = [name.lower() for name in dataset.class_names]
    found = [label for label, name in enumerate(names) if name == word] or [
        label for label, name in enumerate(names) if word in name.split(", ")
    ]
    if not found:
        words = {word for name in dataset.class_names for word in name.split(", ")}
        raise UnknownNameError(f"class of '{dataset.name}'", wanted, words | set(dataset.classes))
    if len(found) > 1:
        ids = ", ".join(dataset.classes[label] for label in found)
        raise InvalidSettingError(f"class '{wanted}' of '{dataset.name}' may mean {ids}; give the id")
    return found[0]


def _ranked(dataset: Dataset, split: Split, name: str, labels: Iterable[int], seed: int) -> list[Rows]:
    """For each chosen class, its rows in the order in which they are taken.

    An image's key is its number within its class, so the choice in one class does not depend on others.
    """
    ranked = []
    for label in labels:
        rows = np.flatnonzero(split.labels == label)
        keys = [_key(seed, name, dataset.classes[label], str(number)) for number in range(len(rows))]
        ranked.append(rows[sorted(range(len(rows)), key=keys.__getitem__)])
    return ranked


def _first_of_each(dataset: Dataset, ranked: list[Rows], count: int | None) -> Rows:
    if count is not None:
        dataset.require_train()
    most = max(map(len, ranked))
    if count is not None and count > most:
        raise DataError(
            f"train_per_class got {count:,}, but no class of '{dataset.name}' has more than {most:,} training"
            " images; choose fewer"
        )
    return np.concatenate([rows[:count] for rows in ranked])


def _first_spread(ranked: list[Rows], count: int | None) -> Rows:
    """One image of each class in turn, until there are ``count``."""
    rows = np.concatenate(ranked)
    if count is None:
        return rows
    if count > len(rows):
        raise DataError(
            f"eval_images got {count:,}, but the chosen classes have {len(rows):,} images; choose fewer"
        )
    turn = np.concatenate([np.arange(len(of_class)) for of_class in ranked])
    return rows[np.argsort(turn, kind="stable")[:count]]


def _key(seed: int, *what: str) -> bytes:
    return hashlib.blake2b(
        "\0".join((str(seed), *what)).encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
