"""The drawn demo set on disk, so that a machine draws it only once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robustbench_tin.atomic import replacing
from robustbench_tin.data.base import Split
from robustbench_tin.data.demo import drawing, scenes, things

_ARRAYS = ("images", "labels", "boxes")


def cache_file(cache_dir: Path) -> Path:
    """The file of the set; other drawing code, or another NumPy, has another file."""
    key = hashlib.blake2b(np.__version__.encode(), digest_size=8)
    for module in (drawing, scenes, things):
        assert module.__file__ is not None
        key.update(Path(module.__file__).read_bytes())
    return cache_dir / f"demo-{key.hexdigest()}.npz"


def load(file: Path, wanted: Mapping[str, int]) -> dict[str, Split] | None:
    """The splits of a file; None if there is no such file, or its content is damaged.

    Args:
        file: the path from :func:`cache_file`.
        wanted: number of images of each split.
    """
    try:
        with np.load(file) as content:
            splits = {name: _split(content, name) for name in wanted}
            whole = str(content["digest"]) == digest(splits)
    except Exception:  # noqa: BLE001 - after any fault, the set is drawn again
        return None
    right = whole and all(len(splits[name]) == count for name, count in wanted.items())
    return splits if right else None


def save(file: Path, splits: Mapping[str, Split]) -> None:
    """Write the splits; if the disk refuses them, they are drawn again next time."""
    arrays = {f"{name}-{array}": getattr(split, array) for name, split in splits.items() for array in _ARRAYS}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, digest=digest(splits), **arrays)
        for other in file.parent.glob("demo-*.npz"):
            if other != file:
                other.unlink(missing_ok=True)
    except OSError:
        return


def digest(splits: Mapping[str, Split]) -> str:
    """16 hexadecimal digits that depend on the content: the data set's fingerprint."""
    found = hashlib.sha256()
    for split in splits.values():
        found.update(split.images.tobytes())
        found.update(split.labels.astype("<i8").tobytes())
        if split.boxes is not None:
            found.update(split.boxes.astype("<i4").tobytes())
    return found.hexdigest()[:16]


def _split(content: Mapping[str, np.ndarray], name: str) -> Split:
    images, labels, boxes = (content[f"{name}-{array}"] for array in _ARRAYS)
    return Split(images, labels, boxes, [f"{name}-{index}" for index in range(len(labels))])
