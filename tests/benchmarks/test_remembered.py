"""Commands take the data options from the run, unless they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustbench_tin.benchmarks.planning.config import DataConfig
from robustbench_tin.benchmarks.runs.remembered import DATA_FILE, data_options, remember
from robustbench_tin.errors import RunError

SETTINGS = [
    ("imagenet:set,size=64,crop=56", "imagenet:{}/set,crop=56,size=64"),
    ("cifar10:root=set", "cifar10:{}/set"),
    ("hf:owner/name,split=test", "hf:owner/name,split=test"),
    ("npz:a.npz", "npz:{}/a.npz"),
]
ASKED: dict[str, Any] = {"classes": 3, "train_per_class": 5, "eval_images": 7, "skip_broken": True}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    remember(tmp_path / "run", DataConfig(data="images", **ASKED))
    return tmp_path / "run"


def test_nothing_given_is_what_the_bench_was_given(run: Path) -> None:
    assert data_options(run, {}) == {"data": str(run.parent / "images"), **ASKED}


def test_what_is_given_wins(run: Path) -> None:
    assert data_options(run, {"eval_images": 9}) == {
        "data": str(run.parent / "images"),
        **ASKED,
        "eval_images": 9,
    }
    same = {"data": "./images", "classes": 2}
    assert data_options(run, same) == {**ASKED, **same}


def test_of_other_data_nothing_is_taken_from_the_run(run: Path) -> None:
    assert data_options(run, {"data": "demo"}) == {"data": "demo"}


@pytest.mark.parametrize(
    ("data", "kept"), [("demo", "demo"), ("folder:set", "folder:{}/set"), ("/a/b.zip", "/a/b.zip"), *SETTINGS]
)
def test_only_paths_become_absolute(run: Path, data: str, kept: str) -> None:
    remember(run, DataConfig(data=data, classes=("a", "b")))
    assert data_options(run, {})["data"] == kept.format(run.parent)
    assert data_options(run, {})["classes"] == ["a", "b"]


def test_a_run_that_remembers_nothing_takes_what_is_given(tmp_path: Path) -> None:
    assert data_options(tmp_path, {"classes": 3}) == {"classes": 3}
    assert data_options(None, {}) == {}


def test_a_damaged_file_is_one_line_and_only_if_it_is_needed(run: Path) -> None:
    (run / DATA_FILE).write_text("{")
    with pytest.raises(RunError, match="is damaged") as caught:
        data_options(run, {})
    assert len(str(caught.value).splitlines()) == 1
    whole = {"data": "demo", **ASKED}
    assert data_options(run, whole) == whole
