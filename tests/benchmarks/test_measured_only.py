"""Data sets without training images: models are measured on them, and training refuses them in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robustbench_tin import bench
from robustbench_tin.benchmarks.commands.fool import fool
from robustbench_tin.benchmarks.gate.user_model import UserModelSource
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.errors import DataError


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Eight images of three classes, 64 px."""
    dice = np.random.default_rng(0)
    path = tmp_path / "arrays.npz"
    np.savez(path, x=dice.integers(0, 256, (8, 64, 64, 3), np.uint8), y=np.arange(8) % 3)
    return path


def test_a_model_is_measured(arrays: Path, write_plugin) -> None:
    model = write_plugin(
        "import torch\n"
        "def build():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 3))\n"
    )
    source = UserModelSource(model=f"{model}:build", data=f"npz:{arrays}", attacks="fgsm", trust=False)
    found = source.measure()
    (measured,) = found.models
    assert [each.record.n for each in measured.figures] == [8, 8, 8]
    assert measured.figures[0].record.data == "npz"


def test_training_is_refused_before_anything_is_written(arrays: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'npz' has no training images here.*; to train, put x_train"):
        bench(models="timm:test_resnet", data=f"npz:{arrays}", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fooling_training_images_is_refused(run: Run, arrays: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'npz' has no training images here"):
        fool(run.path, out=tmp_path / "fooled", data=f"npz:{arrays}")
