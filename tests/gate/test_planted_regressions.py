"""Regressions planted in real runs: each fails the check, with a message that leads to the cause."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from robustbench_tin import bench
from robustbench_tin.benchmarks.gate.baseline import make_baseline
from robustbench_tin.benchmarks.gate.candidate import from_run
from robustbench_tin.benchmarks.gate.check import check
from robustbench_tin.benchmarks.gate.comparison_mode import ComparisonMode
from robustbench_tin.benchmarks.gate.result import CheckReport
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.models import Classifier

COLOURS = {"blue": (70, 110, 150), "green": (110, 140, 110), "red": (150, 110, 80)}
SETTINGS = {
    "models": "timm:test_resnet",
    "attacks": "fgsm,pgd:steps=5",
    "eps": "0,0.02",
    "epochs": 4,
    "device": "cpu",
    "deterministic": True,
    "trust": True,
}


def draw(root: Path, *, shuffled: bool = False) -> str:
    """Three classes of noisy squares; ``shuffled``: a training image's colour says nothing of its class."""
    for part, count in (("train", 24), ("val", 60)):
        random = np.random.default_rng(count)
        for name in COLOURS:
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                seen = random.choice(list(COLOURS)) if shuffled and part == "train" else name
                drawn = random.integers(-60, 60, (16, 16, 3))
                pixels = np.clip(np.array(COLOURS[seen]) + drawn, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return str(root)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline of three seeds, and the run of its first."""
    root = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUST_TIN_CACHE", str(root / "cache"))
        data = draw(root / "images")
        bench(**SETTINGS, data=data, seeds="0", out=root / "run")
        others = bench(**SETTINGS, data=data, seeds="1,2", out=root / "others")
        made = make_baseline([from_run(root / "run"), from_run(others.path)])
        made.write(root / "baseline.json")
        bench(**SETTINGS, data=draw(root / "shuffled", shuffled=True), seeds="0", out=root / "mislabelled")
    return root


def measured_again(place: Path, out: Path) -> Path:
    """The trained cell of the first run, without its measures."""
    shutil.copytree(place / "run", out)
    (cell,) = (out / "cells").iterdir()
    shutil.rmtree(cell / "measures")
    bench(**SETTINGS, data=str(place / "images"), seeds="0", out=out)
    return out


def checked(place: Path, run: Path, said: ComparisonMode | None = None) -> CheckReport:
    return check(from_run(run), place / "baseline.json", forced_mode=said)


def test_without_a_change_it_passes(place: Path, tmp_path: Path) -> None:
    report = checked(place, measured_again(place, tmp_path / "same"))
    assert report.exit_code == 0
    assert {result.drop for result in report.results} == {0.0}


def test_noise_on_the_weights(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    run = Run.load(tmp_path / "run")
    (cell,) = run.plan.cells()
    file = run.weights_file(cell)
    with safe_open(file, framework="pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        about = opened.metadata()
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if value.ndim == 4:
            state[name] = value + 0.3 * value.std() * torch.randn(value.shape, generator=generator)
    save_file(state, file, about)
    run.save_trained(cell, run.trained(cell))  # these are its weights from now on
    shutil.rmtree(file.parent / "measures")
    bench(**SETTINGS, data=str(place / "images"), seeds="0", out=run.path)
    report = checked(place, run.path, ComparisonMode.same_weights)
    assert report.exit_code == 1
    assert "look for the change (conversion, quantisation, pruning, noise" in report.hints[0]


def test_the_wrong_normalisation(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "_normalise", lambda self, images: images)
    report = checked(place, measured_again(place, tmp_path / "run"))
    assert report.exit_code == 1
    assert all(result.mode is ComparisonMode.same_weights for result in report.results)
    assert "look at the preprocessing (normalisation" in report.hints[0]


class Masked(torch.autograd.Function):
    """ReLU with its gradient left out."""

    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:
        return values.clamp(min=0)

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


def test_an_activation_that_masks_gradients(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, values: Masked.apply(values))
    monkeypatch.setattr("torch.nn.functional.relu", lambda values, inplace=False: Masked.apply(values))
    report = checked(place, measured_again(place, tmp_path / "run"))
    attacked = [result for result in report.results if result.key.attack != "clean"]
    assert all(result.drop <= 0 for result in attacked)  # it looks more robust than it was
    assert {result.status.value for result in attacked} == {"suspicious"}
    assert report.exit_code == 1
    assert any("gradients are missing" in cause and "changed activations" in cause for cause in report.hints)


def test_shuffled_training_labels(place: Path) -> None:
    report = checked(place, place / "mislabelled")
    assert report.exit_code == 1
    assert "the training images, labels or boxes changed" in report.hints[0]
    assert "look at labels and files first" in report.hints[0]
