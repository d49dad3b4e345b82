"""A baseline of a model of one's own from several weights files, and re-trainings beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from robustbench_tin.benchmarks.gate.baseline_io import read_baseline
from robustbench_tin.cli.app import app

MODEL = '''
import torch
from torch import nn


class Colours(nn.Module):
    """Says which channel is brightest; each weight scales a channel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, images):
        return 20 * self.weight * images.mean(dim=(2, 3))


def build():
    return Colours()
'''
MEASURED = ["--attacks", "fgsm", "--eps", "0.02", "--no-trust"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three colours that are not easy to tell apart, a model, and weights of five trainings."""
    root = tmp_path_factory.mktemp("trainings")
    random = np.random.default_rng(0)
    for part, count in (("train", 1), ("val", 50)):
        for channel, name in enumerate(("a-red", "b-green", "c-blue")):
            (root / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.full((8, 8, 3), 110) + random.integers(-12, 12, 3)
                pixels[..., channel] += random.integers(5, 40)
                Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / part / name / f"{index}.png")
    (root / "colours.py").write_text(MODEL)
    trained = [(1.0, 1.0, 1.0), (1.01, 1.0, 0.99), (0.99, 1.01, 1.0), (1.0, 1.02, 1.0), (1.0, 0.3, 0.3)]
    for number, weight in enumerate(trained):
        save_file({"weight": torch.tensor(weight)}, root / f"{number}.safetensors")
    torch.save({"state_dict": {"module.weight": torch.ones(3)}}, root / "copy.pt")
    return root


def run(place: Path, command: str, *words: str, weights: tuple[str, ...]) -> tuple[int, str]:
    given = [word for name in weights for word in ("--weights", str(place / name))]
    model = ["--model", f"{place / 'colours.py'}:build", "--data", str(place / "images")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUST_TIN_CACHE", str(place / "cache"))
        done = CliRunner().invoke(app, [command, *model, *given, *MEASURED, *words])
    # CliRunner keeps the exception that `main` would turn into one line.
    return done.exit_code, done.output + str(done.exception or "")


def test_each_file_is_a_seed_and_a_retraining_is_judged_by_their_spread(place: Path, tmp_path: Path) -> None:
    files = tuple(f"{number}.safetensors" for number in range(3))
    out = str(tmp_path / "baseline.json")
    code, said = run(place, "baseline", "--out", out, weights=files)
    assert code == 0, said
    assert "has one seed" not in said
    (entry,) = read_baseline(out).entries
    assert entry.seeds == [0, 1, 2]
    assert len(set(entry.weights)) == 3
    assert all(len(set(measure.right)) > 1 for measure in entry.measures)

    asked = ("--baseline", out, "--retrained", "--max-drop", "0.05")
    code, said = run(place, "check", *asked, weights=("3.safetensors",))
    assert code == 0, said
    assert "compared with the spread of 3 seeds" in said
    code, said = run(place, "check", *asked, weights=("4.safetensors",))
    assert code == 1, said


def test_one_file_says_how_to_give_more(place: Path, tmp_path: Path) -> None:
    _, said = run(place, "baseline", "--out", str(tmp_path / "b.json"), weights=("0.safetensors",))
    assert "give --weights once for each training" in said


@pytest.mark.parametrize("other", ["0.safetensors", "copy.pt"])
def test_the_same_weights_twice_are_refused(place: Path, tmp_path: Path, other: str) -> None:
    out = tmp_path / "baseline.json"
    code, said = run(place, "baseline", "--out", str(out), weights=("0.safetensors", other))
    assert code != 0
    assert f"{other}' are the same as" in said
    assert "expected one file for each training" in said
    assert not out.exists()


def test_several_retrainings_are_checked_together(place: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "baseline.json")
    run(place, "baseline", "--out", out, weights=("0.safetensors",))
    given = ("1.safetensors", "2.safetensors")
    code, said = run(place, "check", "--baseline", out, "--max-drop", "0.2", weights=given)
    assert code == 0, said
    assert "compared with one seed" in said
