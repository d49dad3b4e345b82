"""Files of class orders: lines, and JSON of several kinds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np

from robustbench_tin.data import Dataset, Split
from robustbench_tin.data.class_order import in_class_order

_IDS = [f"n{number:08}" for number in range(20)]


def seeds() -> list[dict[str, bytes]]:
    """The ids in reverse, in each form that is read."""
    order = _IDS[::-1]
    forms = [order, {str(row): name for row, name in enumerate(order)}]
    forms += [{str(row): [name, "word"] for row, name in enumerate(order)}]
    forms += [{name: row for row, name in enumerate(order)}]
    text = "\n".join(order)
    return [
        {"order.txt": text.encode()},
        {"order.txt": text.encode("utf-16")},
        *({"order.json": json.dumps(form).encode()} for form in forms),
    ]


def read(folder: Path) -> None:
    """As ``--class-order FILE`` is read."""
    for path in sorted(folder.iterdir()):
        in_class_order(_dataset(), path)


@cache
def _dataset() -> Dataset:
    part = Split(np.zeros((20, 3, 2, 2), np.uint8), np.arange(20))
    return Dataset("made", "made", tuple(_IDS), tuple(_IDS), part, part, "0" * 16)
