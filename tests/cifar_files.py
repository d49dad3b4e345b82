"""Small CIFAR sets in torchvision's files."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

SETS: dict[str, tuple[Any, str]] = {"cifar10": (CIFAR10, "labels"), "cifar100": (CIFAR100, "fine_labels")}
ROWS = 3


def content_of(name: str, key: str, rows: int = ROWS) -> dict[str, Any]:
    """A file of a few rows as the published ones are: planes of red, green and blue, row by row."""
    dice = np.random.default_rng(sum(name.encode()))
    return {
        "data": dice.integers(0, 256, (rows, 3072), dtype=np.uint8),
        key: dice.integers(0, 4, rows).tolist(),
        "filenames": [f"{name}_{row}.png" for row in range(rows)],
    }


def draw_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch, rows: int = ROWS) -> Path:
    """Write a small set of four classes in torchvision's files, whose MD5 it lists; returns the root."""
    listed, key = SETS[name]
    folder = root / listed.base_folder
    for part in ("train_list", "test_list"):
        files = [
            [file, _write(folder, file, content_of(file, key, rows))] for file, _ in getattr(listed, part)
        ]
        monkeypatch.setattr(listed, part, files)
    names = {listed.meta["key"]: ["ship", "truck", "cat", "dog"], "num_vis": 3072}
    md5 = _write(folder, listed.meta["filename"], names)
    monkeypatch.setattr(listed, "meta", {**listed.meta, "md5": md5})
    return root


def _write(folder: Path, name: str, content: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    # As Python 2 wrote them: protocol 2.
    (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5((folder / name).read_bytes()).hexdigest()
