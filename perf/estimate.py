"""How far the predicted time of a plan is from the time that it takes: ``python perf/estimate.py``.

Each plan is estimated and run, and a line of the table compares them: all work, and the parts for training
and for measurements. ``--plan N`` runs one of them. Other work on the machine slows a run, not an estimate.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from robustbench_tin import bench
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.run_state import RunState, run_state

_DEMO: dict[str, Any] = {"data": "demo", "device": "cpu", "eval_images": 100, "threads": 1, "curves": "none"}
PLANS: list[dict[str, Any]] = [
    {"models": "mobilenet", "attacks": "fgsm,pgd", "epochs": 2, "image_size": 32},
    {"models": "mobilenet", "attacks": "fgsm,pgd", "epochs": 2, "train": "last:10", "image_size": 64},
    {
        "models": "timm:resnet18",
        "defenses": "fgsm-at",
        "attacks": "pgd:steps=20",
        "epochs": 1,
        "image_size": 32,
    },
    {"models": "timm:test_resnet", "attacks": "fgsm,pgd:steps=50", "epochs": 8, "train": "head"},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--plan", type=int, help="number of the only plan to run, from 0")
    chosen = parser.parse_args().plan
    print("| plan | predicted, s | taken, s | predicted / taken | training | measurements | call, s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for number, plan in enumerate(PLANS):
        if chosen in (None, number):
            _compare(plan)


def _compare(plan: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        run = bench(**_DEMO, **plan, out=Path(scratch) / "run")
        seconds = time.monotonic() - started
        assert run is not None
        _print(plan, run, run_state(run), seconds)


def _print(plan: dict[str, Any], run: Run, state: RunState, seconds: float) -> None:
    assert state.costs is not None
    pairs = [cell.measured(state.costs.cells[cell.cell.slug]) for cell in state.cells]
    expected, taken = (sum(column) for column in zip(*pairs, strict=True))
    train = sum(state.costs.cells[cell.cell.slug].train for cell in state.cells)
    trained = sum(cell.trained.seconds or 0.0 for cell in state.cells if cell.trained)
    named = ", ".join(f"{key}={value}" for key, value in plan.items())
    ratios = [expected / taken, train / trained, (expected - train) / (taken - trained)]
    print(
        f"| {named} | {expected:.1f} | {taken:.1f} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |"
        f" {seconds:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
