"""The images that a caller's model is measured on: the caller's own, or those of a named data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustbench_tin import data as data_sets
from robustbench_tin.benchmarks.measurement.inputs import (
    Images,
    Labels,
    as_images_and_labels,
    require_values,
)
from robustbench_tin.benchmarks.measurement.preparation import count_classes
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.data.class_order import in_class_order, other_orders
from robustbench_tin.devices import device_of, images_device
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.progress import LinesReporter
from robustbench_tin.runtime import as_tensor

Data = Images | str | data_sets.Dataset | data_sets.Split
"""Data to measure a model on: images, with or without labels, an open data set or split, or a name."""
_ASKED = 8


@dataclass(frozen=True)
class EvaluatedData:
    """Images and labels, and facts about them.

    Attributes:
        images: uint8 or float32 ``(N, C, H, W)`` in [0, 1].
        labels: int64 ``(N,)``, indices of the model's outputs.
        facts: fields of the records.
        notes: remarks on the data set, one a line.
        orders: labels in other orders of the classes, by name.
    """

    images: Tensor
    labels: Tensor
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    orders: Mapping[str, Any] = field(default_factory=dict)


def evaluated_data(
    model: nn.Module,
    data: Data,
    labels: Labels | None,
    *,
    eval_images: int | None,
    classes: int | str | Sequence[str] | None,
    class_order: str | Path | None,
) -> EvaluatedData:
    """Find the images and labels to measure a model on.

    Args:
        model: the model; if a data set is named, its outputs are counted.
        data: see :func:`robustbench_tin.evaluate`, also for the other arguments.

    Raises:
        RobustTinError: for data of another kind, and for options that only a named data set has.
    """
    if isinstance(data, data_sets.Split):
        return EvaluatedData(*as_images_and_labels(data.images, data.labels if labels is None else labels))
    if not isinstance(data, str | data_sets.Dataset):
        _refuse_options(eval_images=eval_images, classes=classes, class_order=class_order)
        return EvaluatedData(*as_images_and_labels(data, labels))
    require_values(model)
    notes = LinesReporter()
    part = (
        open_part(notes, data=data, classes=classes, eval_images=eval_images)
        if isinstance(data, str)
        else data_sets.subset(data, classes=classes, eval_images=eval_images)
    )
    if labels is not None:
        raise InvalidSettingError("got labels and a data set, which has its own; leave the labels out")
    few = as_tensor(part.val.images[:_ASKED]).to(images_device(device_of(model))).float() / 255
    outputs = count_classes(model, few)
    ordered = in_class_order(part, class_order, outputs)
    return EvaluatedData(
        as_tensor(ordered.val.images),
        as_tensor(ordered.val.labels),
        {
            "data": ordered.name,
            "data_fingerprint": ordered.fingerprint,
            "measured_on": ordered.val.fingerprint,
        },
        tuple(notes.lines),
        other_orders(part, class_order, outputs),
    )


def _refuse_options(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise InvalidSettingError(
                f"{name} got {value!r} with images; it works only with the name of a data set"
            )
