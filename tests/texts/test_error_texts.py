"""The commonest mistakes: the line that each gets, and its exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import picture, save
from safetensors.numpy import save_file
from syrupy.assertion import SnapshotAssertion

from perf.made_up_run import make_run

BENCH = "robust-tin bench --data images"
EVALUATE = "robust-tin evaluate --data images --model timm:test_resnet"

LINES = {
    "unknown command": "robust-tin bensh",
    "unknown option": f"{BENCH} --epoch 3",
    "unknown option value": f"{BENCH} --norm l3",
    "eps that is no number": f"{BENCH} --eps 0.01,much",
    "eps in levels of 255": f"{BENCH} --eps 8",
    "empty list item": f"{BENCH} --models mobilenet,,resnet50",
    "unknown backbone": f"{BENCH} --models densnet169",
    "unknown attack": f"{BENCH} --attacks fsgm",
    "unknown defense": f"{BENCH} --defenses fgsm-ta",
    "unknown setting": f"{BENCH} --attacks pgd:step=10",
    "setting of a wrong type": f"{BENCH} --attacks pgd:steps=ten",
    "setting out of range": f"{BENCH} --attacks pgd:steps=0",
    "spec without a value": f"{BENCH} --attacks pgd:steps",
    "unknown preset": f"{BENCH} --preset skratch",
    "no such data": "robust-tin bench --data absent",
    "folder without images": "robust-tin bench --data empty",
    "more classes than there are": f"{BENCH} --classes 1000",
    "no such plug-in": f"{BENCH} --plugin absent.py",
    "no such device": f"{BENCH} --device tpu",
    "changed plan": f"{BENCH} --models mobilenet --out run",
    "no such model": "robust-tin evaluate --data images --model absent:build",
    "no such weights": f"{EVALUATE} --weights absent.safetensors",
    "weights that are no weights": f"{EVALUATE} --weights text.safetensors",
    "weights of another shape": f"{EVALUATE} --weights other.safetensors",
    "no such run": "robust-tin show absent",
    "no such cell": "robust-tin show run --cell resnet18/*",
    "damaged record": "robust-tin show damaged",
    "no baseline": "robust-tin check run",
    "damaged baseline": "robust-tin check run --baseline text.safetensors",
}


@pytest.fixture(scope="module", autouse=True)
def inputs(place: Path) -> None:
    """Images of two classes, wrong weights, a finished run and a damaged one."""
    for key, name in enumerate(("train/blue", "train/red", "val/blue", "val/red")):
        save(place / f"images/{name}/0.png", picture(key))
    (place / "empty").mkdir()
    (place / "text.safetensors").write_text("no weights")
    save_file({"conv1.weight": np.zeros((4, 3, 3, 3), np.float32)}, place / "other.safetensors")
    for name in ("run", "damaged"):
        make_run(place / name, models=["mobilenet"], defenses=["none"], attacks=["fgsm"], eps=[0, 4 / 255])
    (record,) = (place / "damaged").rglob("fgsm@*.json")
    record.write_text(record.read_text().replace('"top1": 0.', '"top1": 2.'))


@pytest.mark.parametrize("mistake", LINES)
def test_a_mistake_gets_one_line(
    mistake: str, answer: Callable[[str], str], snapshot: SnapshotAssertion
) -> None:
    told = answer(LINES[mistake])
    assert told == snapshot
    # The command, its answer and the exit code.
    assert len(told.splitlines()) == 3
