"""A run whose files are damaged, exchanged or missing: no figure is shown; the same command repairs it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from robustbench_tin import bench
from robustbench_tin.benchmarks.gate.candidate import from_run
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.errors import RunError
from robustbench_tin.progress import LinesReporter

CELL, OTHER = "cells/timm_test_resnet*--none--s0", "cells/timm_test_resnet*--none--s1"


@pytest.fixture(scope="module")
def options(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return {
        "models": "timm:test_resnet",
        "data": str(small_folder),
        "attacks": "fgsm",
        "eps": "0,0.01,0.2",
        "epochs": 2,
        "seeds": "0,1",
        "device": "cpu",
        "trust": False,
        "deterministic": True,
        "out": tmp_path_factory.mktemp("sound") / "run",
    }


@pytest.fixture(scope="module")
def sound(options: dict) -> Run:
    return bench(**options)


@pytest.fixture
def copy(sound: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound.path, tmp_path / "run"))


def figures(run: Run) -> list[dict]:
    names = ["seed", "attack", "eps", "n", "top1", "top5", "status"]
    return run.records[names].to_dict("records")


def edited(file: Path, **values: object) -> None:
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


def one(run: Path, pattern: str) -> Path:
    (found,) = run.glob(pattern)
    return found


def top1(value: float) -> Callable[[Path], None]:
    return lambda run: edited(one(run, f"{CELL}/measures/fgsm@0.2.json"), top1=value)


def top1_of_an_earlier_version(run: Path) -> None:
    """Without digests, the results per image still tell."""
    untie(run)
    file = one(run, f"{CELL}/measures/fgsm@0.2.json")
    other = (json.loads(file.read_text())["top1"] * 24 + 1) % 24 / 24
    edited(file, top1=other, top1_low=0.0, top1_high=1.0)


def top5_below_top1(run: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    untie(run)
    file = one(run, f"{CELL}/measures/fgsm@0.01.parquet")
    hits = [True] * 24
    parquet.write_table(pyarrow.table({"top1": hits, "top5": [False] * 24}), file)
    bounds = {"top1_low": 0.0, "top1_high": 1.0, "top5_low": 0.0, "top5_high": 1.0}
    edited(file.with_suffix(".json"), top1=1.0, top5=0.0, **bounds)


def untie(run: Path) -> None:
    """As an earlier version wrote it."""
    digests = ("digest", "plan_digest", "weights_digest", "results_digest", "cell")
    for file in run.glob("cells/*/**/*.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({name: content[name] for name in content if name not in digests}))


def cut(run: Path) -> None:
    file = one(run, f"{CELL}/measures/fgsm@0.2.parquet")
    file.write_bytes(file.read_bytes()[:100])


def cut_of_an_earlier_version(run: Path) -> None:
    untie(run)
    cut(run)


def without_results(run: Path) -> None:
    one(run, f"{CELL}/measures/clean@0.0.parquet").unlink()


def results_of_another_measure(run: Path) -> None:
    shutil.copy(one(run, f"{CELL}/measures/clean@0.0.parquet"), one(run, f"{CELL}/measures/fgsm@0.2.parquet"))


def measure_of_another_eps(run: Path) -> None:
    for suffix in ("json", "parquet"):
        weak, strong = (one(run, f"{CELL}/measures/fgsm@{eps}.{suffix}") for eps in ("0.01", "0.2"))
        shutil.copy(weak, strong)


def measure_of_another_seed(run: Path) -> None:
    for suffix in ("json", "parquet"):
        here, there = (one(run, f"{cell}/measures/fgsm@0.2.{suffix}") for cell in (CELL, OTHER))
        shutil.copy(there, here)


def of_another_run(run: Path) -> None:
    edited(one(run, f"{CELL}/measures/fgsm@0.2.json"), data_fingerprint="0" * 16, digest=...)


def no_file_at_all(run: Path) -> None:
    file = one(run, f"{CELL}/measures/fgsm@0.2.json")
    file.unlink()
    os.mkfifo(file)


def training_of_another_seed(run: Path) -> None:
    shutil.copy(one(run, f"{OTHER}/training.json"), one(run, f"{CELL}/training.json"))


def without_training(run: Path) -> None:
    one(run, f"{CELL}/training.json").unlink()


def weights_flipped(run: Path) -> None:
    file = one(run, f"{CELL}/weights.safetensors")
    content = bytearray(file.read_bytes())
    content[-1000] ^= 0x40
    file.write_bytes(content)


def weights_of_another_seed(run: Path) -> None:
    shutil.copy(one(run, f"{OTHER}/weights.safetensors"), one(run, f"{CELL}/weights.safetensors"))


def weights_missing(run: Path) -> None:
    one(run, f"{CELL}/weights.safetensors").unlink()


FIGURES = [
    top1(2.5),
    top1(-1.0),
    top1(0.5),
    top1(float("nan")),
    top1_of_an_earlier_version,
    top5_below_top1,
    cut,
    cut_of_an_earlier_version,
    without_results,
    results_of_another_measure,
    measure_of_another_eps,
    measure_of_another_seed,
    of_another_run,
    pytest.param(no_file_at_all, marks=pytest.mark.skipif(os.name != "posix", reason="needs a FIFO")),
    training_of_another_seed,
    without_training,
]
WEIGHTS = [weights_flipped, weights_of_another_seed]


@pytest.mark.parametrize("damage", FIGURES)
def test_no_figure_of_a_damaged_measure_is_shown(damage: Callable[[Path], None], copy: Path) -> None:
    damage(copy)
    for look in (lambda: Run.load(copy).tables, lambda: Run.load(copy).records, lambda: from_run(copy)):
        with pytest.raises(RunError, match="run the same command again to measure it again") as caught:
            look()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", WEIGHTS)
def test_no_baseline_is_made_of_other_weights(damage: Callable[[Path], None], copy: Path) -> None:
    damage(copy)
    with pytest.raises(RunError, match="damaged or replaced"):
        from_run(copy)
    with pytest.raises(RunError, match="damaged or replaced"):
        Run.load(copy).checked_weights(Cell("timm:test_resnet", "none", 0))


@pytest.mark.parametrize("damage", [*FIGURES, *WEIGHTS, weights_missing])
def test_the_same_command_repairs_it(
    damage: Callable[[Path], None], copy: Path, options: dict, sound: Run
) -> None:
    damage(copy)
    heard = LinesReporter()
    repaired = bench(**{**options, "out": copy}, reporter=heard)
    assert any("again, because" in line for line in heard.warnings)
    assert figures(repaired) == figures(sound)
    assert [model.weights for model in from_run(copy).models] == [
        model.weights for model in from_run(sound.path).models
    ]
    quiet = LinesReporter()
    bench(**{**options, "out": copy}, reporter=quiet)
    assert quiet.warnings == []


def test_missing_weights_are_told_beside_the_figures(copy: Path) -> None:
    assert Run.load(copy).notes == []
    weights_missing(copy)
    (note,) = Run.load(copy).notes
    assert "the weights of timm:test_resnet + none, seed 0 are missing" in note
    assert from_run(copy).notes == (note,)


def test_a_run_of_an_earlier_version_is_read_with_a_note(copy: Path, sound: Run) -> None:
    untie(copy)
    run = Run.load(copy)
    assert figures(run) == figures(sound)
    (note,) = run.notes
    assert "written by an earlier version, without digests" in note


def test_only_the_damaged_measures_are_taken_again(copy: Path, options: dict) -> None:
    cut(copy)
    kept = [one(copy, f"{cell}/measures/clean@0.0.json") for cell in (CELL, OTHER)]
    stamps = [file.stat().st_mtime_ns for file in kept]
    bench(**{**options, "out": copy})
    assert [file.stat().st_mtime_ns for file in kept] == stamps
