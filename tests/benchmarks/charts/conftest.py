"""Runs with results that are made up."""

import sys
from pathlib import Path

import pytest

from robustbench_tin.benchmarks.run import Run

sys.path.append(str(Path(__file__).parents[3]))  # perf is no part of the package

from perf.made_up_run import make_run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two backbones with three defenses, one seed; tests only read it."""
    return make_run(tmp_path_factory.mktemp("made") / "first")


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One backbone with one defense and three seeds; tests only read it."""
    return make_run(
        tmp_path_factory.mktemp("seeded") / "second",
        models=["vgg16"],
        defenses=["none"],
        seeds=(0, 1, 2),
        attacks=["pgd"],
        eps=(0, 0.03),
        classes=4,
    )
