"""Detect a model that seems untrained because its classes have another order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robustbench_tin.metrics import above_chance, interval

# This number of images is enough to decide.
_LOOKED_AT = 2_000


def fitting_order(logits: Tensor, labels: Tensor, orders: Mapping[str, Any]) -> str | None:
    """A warning if the answers fit another order of the classes better.

    Args:
        logits: the measured logits of the clean images, ``(N, C)``.
        labels: labels of the images, int64 ``(N,)``.
        orders: for each other class order, by name, the labels of the same images, int64 ``(N,)``.

    Returns:
        One line with the option to give; None if no other order fits better.
    """
    answers = logits[:_LOOKED_AT].argmax(1).cpu()
    labels = labels[:_LOOKED_AT].cpu()
    classes = logits.shape[1]
    right = {name: _right(answers, torch.as_tensor(other)) for name, other in orders.items()}
    best = max(right, key=lambda name: right[name], default=None)
    count, here = len(answers), _right(answers, labels)
    if best is not None and interval(right[best], count)[0] > interval(here, count)[1]:
        return (
            f"{here:,} of {count:,} clean images are right, but {right[best]:,} in the class order '{best}':"
            f" give --class-order {best} (in Python: in_class_order)"
        )
    if not above_chance(here, count, classes) and _follows_classes(answers, labels, classes):
        return (
            "clean accuracy is at chance, but the answers fit the classes in another order: give the class"
            " order of the model (--class-order FILE; in Python: in_class_order)"
        )
    return None


def _right(answers: Tensor, labels: Tensor) -> int:
    return int((answers == labels[:_LOOKED_AT].cpu()).sum())


def _follows_classes(answers: Tensor, labels: Tensor, classes: int) -> bool:
    """Whether the most common answer to each class in one half of the images predicts the other half."""
    # Random halves, because data sets are often sorted by class.
    dice = torch.Generator().manual_seed(0)
    half = torch.rand(len(labels), generator=dice, dtype=torch.float32) < 0.5
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    counts.index_put_((labels[half], answers[half]), torch.ones_like(labels[half]), accumulate=True)
    foretold, seen = counts.argmax(1), counts.sum(1) > 0
    # A model that always gives the same answer does not depend on the class.
    commonest = int(answers.mode().values)
    asked = ~half & seen[labels] & (foretold[labels] != commonest)
    right, count = int((foretold[labels] == answers)[asked].sum()), int(asked.sum())
    return count > 0 and 2 * right > count and above_chance(right, count, classes)
