"""Cache entries for data sets that are arrays at their source, as for decoded images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_tin.data.base import Split
from robustbench_tin.data.cache_entry import Decoded, content_digest, npy_header, open_entry
from robustbench_tin.data.source import OpenOptions
from robustbench_tin.text import printable

_ROWS = 4096  # number of images written at a time


@dataclass(frozen=True)
class Arrays:
    """The content of a source of arrays.

    Attributes:
        classes: class ids in label order.
        splits: ``val``, and ``train`` if there is one; all images are square and of one size.
        notes: lines to show the user.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    notes: tuple[str, ...] = ()


def open_arrays(
    kind: str, location: Path, stamp: str, read: Callable[[], Arrays], options: OpenOptions
) -> Decoded:
    """Open the cache entry of a source of arrays; read the source first if there is no entry.

    Args:
        kind: the source's name.
        location: the file or directory.
        stamp: a text that changes if they change.
        read: reads and checks them; called only if there is no entry.
        options: cache directory.

    Raises:
        DataError: from ``read``, or if the cache cannot be written.
    """
    return open_entry(
        kind, location, stamp, options, lambda directory: _write_entry(directory, read(), options)
    )


def _write_entry(directory: Path, arrays: Arrays, options: OpenOptions) -> dict[str, Any]:
    digest = content_digest(arrays.splits["val"].images.shape[-1], arrays.classes)
    splits = [name for name in ("train", "val") if name in arrays.splits]
    for name in splits:
        _write_split(directory, name, arrays.splits[name], digest, options)
    return {
        "classes": arrays.classes,
        "class_names": [printable(name) for name in arrays.classes],
        "counts": {name: len(arrays.splits[name]) for name in splits},
        "boxed": [],
        "broken": {},
        "left_out": {},
        "remarks": arrays.notes,
        "fingerprint": digest.hexdigest(),
    }


def _write_split(directory: Path, name: str, split: Split, digest: Any, options: OpenOptions) -> None:
    with (directory / f"{name}-images.npy").open("wb") as file:
        file.write(npy_header(len(split), split.images.shape[-1]))
        for start in range(0, len(split), _ROWS):
            rows = np.ascontiguousarray(split.images[start : start + _ROWS])
            file.write(rows.data)
            digest.update(rows.data)
            options.report(f"reading {name} images", start + len(rows), len(split))
        file.flush()
        os.fsync(file.fileno())  # otherwise a power cut could leave an entry with holes in it
    labels = np.ascontiguousarray(split.labels, np.int64)
    digest.update(labels.data)
    np.save(directory / f"{name}-labels.npy", labels)
    ids = [f"{name}/{row}" for row in range(len(split))] if split.ids is None else list(split.ids)
    (directory / f"{name}-ids.json").write_text(json.dumps(ids), encoding="utf-8")
