"""Weights files: safetensors, and torch files of either format, plain and wrapped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from robustbench_tin.models.weights_file import read_weights_file, tensors_digest


def seeds() -> list[dict[str, bytes]]:
    """A small network's state, in each format that is read."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    state = network.state_dict()
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    return [
        {"weights.safetensors": save(dict(state), {"backbone": "toy"})},
        {"weights.pt": _saved(state)},
        {"weights.pth": _saved(wrapped, legacy=True)},
        {"weights.ckpt": _saved({**wrapped, "optimizer": {"lr": 0.1, "steps": [1, 2]}})},
        {"weights.bin": _saved(halves, legacy=True)},
    ]


def read(folder: Path) -> None:
    """As ``--weights`` and a run's cells are read."""
    for path in sorted(folder.iterdir()):
        tensors_digest(read_weights_file(path).state)


def _saved(content: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()
