"""The order of a model's classes, which may differ from the data set's order.

Tiny ImageNet's classes are in the order of ``wnids.txt``, which is not sorted; a model trained with
torchvision's ``ImageFolder`` has them sorted by id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustbench_tin.data.base import UNLABELLED, Dataset, Split
from robustbench_tin.data.imagenet_classes import COUNT, class_numbers
from robustbench_tin.errors import DataError, InvalidSettingError, one_line
from robustbench_tin.files import decode_text, read_bytes

ORDERS = ("sorted", "wnids")
IMAGENET = "imagenet"
"""The order of the 1,000 classes in published networks: sorted by id."""
_LARGEST = 10 << 20
_EXPECTED = "expected a file with one class id per line, or JSON: a list of ids, or ids by index"


def in_class_order(dataset: Dataset, order: str | Path | None, outputs: int | None = None) -> Dataset:
    """The data set with its classes in a model's order, so that its labels are the model's outputs.

    Args:
        dataset: a whole data set, or a part.
        order: ``sorted`` (by id, as in ``ImageFolder``), ``wnids`` (as in ``wnids.txt``, Tiny ImageNet's own
            order), ``imagenet`` (the 1,000 classes of ImageNet's challenge), or a file that lists the ids of
            the model's classes; it may list more than the data set has. None for the data set's own order.
        outputs: number of the model's outputs. If it equals the number of classes of the whole data set, the
            labels of a part are positions in the whole.

    Raises:
        InvalidSettingError: for an order that this data set does not have, or a file without class ids.
        DataError: if the file lacks a class.
    """
    whole = dataset.whole or dataset.classes
    known = whole if outputs == len(whole) else dataset.classes
    if order is None:
        listed: Sequence[str] = known
    elif order == "sorted":
        listed = sorted(known)
    elif order == "wnids":
        if dataset.name != "tiny-imagenet":
            raise InvalidSettingError(
                f"class-order got 'wnids', but '{dataset.name}' has no wnids.txt; expected sorted or a file"
            )
        listed = known
    else:
        ids = list(class_numbers()) if order == IMAGENET else _read(Path(order).expanduser())
        listed = _named_ids(dataset, ids, order)
    if tuple(listed) == dataset.classes:
        return dataset
    place = {name: index for index, name in enumerate(listed)}
    labels = np.array([place[name] for name in dataset.classes], np.int64)
    names = dict(zip(dataset.classes, dataset.class_names, strict=True))
    return replace(
        dataset,
        classes=tuple(listed),
        class_names=tuple(names.get(name, name) for name in listed),
        train=_relabelled(dataset.train, labels),
        val=_relabelled(dataset.val, labels),
    )


def output_order(dataset: Dataset, order: str | Path | None, outputs: int, name: str) -> tuple[int, ...]:
    """For each class of the data set, the number of the model's output for it, then its other outputs.

    Args:
        dataset: a whole data set, or a part.
        order: as in :func:`in_class_order`.
        outputs: number of the model's outputs.
        name: name of the model, for the message.

    Returns:
        One number for each output; empty if the outputs are in this order already.

    Raises:
        InvalidSettingError: if the number of outputs differs from the number of classes in the order, and as
            :func:`in_class_order`.
        DataError: as :func:`in_class_order`.
    """
    listed = in_class_order(dataset, order, outputs).classes
    if len(listed) != outputs:
        if order in (None, *ORDERS):
            known = dict.fromkeys((len(dataset.classes), len(dataset.whole or dataset.classes)))
            which = f"{IMAGENET}, or FILE" if outputs == COUNT else "FILE"
            expected = (
                f"the data set '{dataset.name}' has {' or '.join(f'{count:,}' for count in known)} classes;"
                f" expected one output for each, or --class-order {which} with the ids of the model's"
                f" {outputs:,} classes in its order"
            )
        else:
            expected = f"class-order '{order}' lists {len(listed):,} classes; expected one for each output"
        raise InvalidSettingError(f"model '{name}' has {outputs:,} outputs, but {expected}")
    place = {wnid: index for index, wnid in enumerate(listed)}
    first = [place[wnid] for wnid in dataset.classes]
    taken = set(first)
    found = (*first, *(index for index in range(outputs) if index not in taken))
    return () if found == tuple(range(outputs)) else found


def other_orders(
    dataset: Dataset, order: str | Path | None, outputs: int
) -> dict[str, npt.NDArray[np.int64]]:
    """The labels of the validation images in each other order of :data:`ORDERS`, by its name.

    Args:
        dataset: the data set in its own order.
        order: the order that a model was measured in.
        outputs: number of the model's outputs.
    """
    taken = in_class_order(dataset, order, outputs).val.labels
    found = {}
    for name in ORDERS if dataset.name == "tiny-imagenet" else ORDERS[:1]:
        labels = in_class_order(dataset, name, outputs).val.labels
        if not np.array_equal(labels, taken):
            found[name] = labels
    return found


def _relabelled(split: Split, labels: npt.NDArray[np.int64]) -> Split:
    return replace(split, labels=np.where(split.labels == UNLABELLED, UNLABELLED, labels[split.labels]))


def _named_ids(dataset: Dataset, listed: list[str], order: str | Path) -> list[str]:
    """The listed classes as ids; a file may list readable names instead."""
    ids = {name.lower(): wnid for wnid, name in zip(dataset.classes, dataset.class_names, strict=True)}
    found = [name if name in dataset.classes else ids.get(name.lower(), name) for name in listed]
    twice = next((name for index, name in enumerate(found) if name in found[:index]), None)
    if twice is not None:
        raise InvalidSettingError(f"class-order '{order}' lists '{twice}' twice; expected each class once")
    missing = [name for name in dataset.classes if name not in set(found)]
    if missing:
        raise DataError(
            f"class-order '{order}' lacks {len(missing):,} of {len(dataset.classes):,} classes, first"
            f" '{missing[0]}'; {_EXPECTED}"
        )
    return found


def _read(path: Path) -> list[str]:
    try:
        if not path.is_file():
            raise InvalidSettingError(f"class-order got '{path}'; expected sorted, wnids, imagenet or a file")
        content = read_bytes(path, _LARGEST)
    except (OSError, ValueError) as error:
        raise InvalidSettingError(
            f"class-order '{path}' cannot be read ({one_line(error)}); {_EXPECTED}"
        ) from None
    try:
        text = decode_text(content)
        lines = list(_ids(json.loads(text)) if text.lstrip()[:1] in ("[", "{") else _lines(text))
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise InvalidSettingError(f"class-order '{path}' contains no class ids; {_EXPECTED}") from None
    if not lines:
        raise InvalidSettingError(f"class-order '{path}' is empty; {_EXPECTED}")
    return lines


def _lines(text: str) -> Iterator[str]:
    """The first column of each line, which is the id in ``words.txt`` and CSV files."""
    for line in text.splitlines():
        if line.strip():
            yield line.split("\t")[0].strip().strip('"')


def _ids(content: object) -> list[str]:
    """Ids from a list, ``{"0": "n01"}``, ``{"0": ["n01", "goldfish"]}`` or ``{"n01": 0}``."""
    if isinstance(content, dict):
        if all(isinstance(value, int) for value in content.values()):
            content = {str(index): name for name, index in content.items()}
        content = [content[str(index)] for index in range(len(content))]
    if not isinstance(content, list):
        raise ValueError
    return [str(each[0] if isinstance(each, list) else each) for each in content]
