"""The tables and lists of stored results, made up from seeds, as a terminal of 100 columns shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from perf.made_up_run import make_run

# One that the run keeps, and one that it does not.
FLOORS = ("clean=0.2", "pgd@8/255=0.2")


@pytest.fixture(scope="module", autouse=True)
def runs(place: Path) -> None:
    """Two finished runs: one with two defenses, one with two attacks and two seeds."""
    make_run(place / "runs/defenses", models=["mobilenet"], defenses=["none", "fgsm-at"], attacks=["fgsm"])
    make_run(place / "runs/seeds", models=["resnet50"], defenses=["none"], seeds=[0, 1], eps=[0, 8 / 255])


@pytest.mark.parametrize(
    "line",
    [
        "robust-tin show runs/defenses",
        "robust-tin show runs/defenses --by attack --intervals",
        "robust-tin show runs/defenses --format latex",
        "robust-tin show runs/seeds",
        "robust-tin show runs/seeds --per-seed --format markdown",
        "robust-tin compare runs/defenses",
        "robust-tin runs",
    ],
)
def test_a_table(line: str, answer: Callable[[str], str], snapshot: SnapshotAssertion) -> None:
    assert answer(line) == snapshot


def test_the_gate(answer: Callable[[str], str], snapshot: SnapshotAssertion) -> None:
    told = [answer("robust-tin baseline runs/seeds --out baseline.json")]
    told += [
        answer(f"robust-tin check runs/seeds --baseline baseline.json --min {floor}") for floor in FLOORS
    ]
    assert "\n\n".join(told) == snapshot
