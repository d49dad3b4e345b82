"""Time, memory and size of a report: ``python perf/report.py``.

The results are made up (perf/made_up_run.py); each report is made by the command in a process of its own. One
run has 100 measurements of 10,000 images, the other 8 backbones x 4 defenses x 3 attacks x 4 budgets.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from perf.made_up_run import make_run
from robustbench_tin.benchmarks.run import Run

EPS = (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255)
BACKBONES = (
    "vgg16",
    "vgg19",
    "mobilenet",
    "resnet50",
    "inceptionv3",
    "nasnetlarge",
    "densenet121",
    "densenet169",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="directory for the runs and pages; none is kept otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = arguments.keep or Path(scratch)
        print("| run | measurements | images | seconds | CPU seconds | memory, MiB | page, MiB |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        _time("many images", _many_images(place / "images", arguments.images))
        _time("many cells", _many_cells(place / "cells"))


def _many_images(path: Path, images: int) -> Run:
    """100 measurements: four cells, each clean, under five attacks at four budgets, and the worst case."""
    attacks = ("fgsm", "pgd", "mi-fgsm", "apgd-ce", "fast")
    models, defenses = ("resnet50", "mobilenet"), ("none", "fgsm-at")
    if path.exists():
        return Run.load(path)
    return make_run(
        path, models=models, defenses=defenses, attacks=attacks, eps=EPS, images=images, classes=200
    )


def _many_cells(path: Path) -> Run:
    attacks, defenses = ("fgsm", "pgd", "apgd-ce"), ("none", "bbox-crop", "fgsm-at", "pgd-at")
    if path.exists():
        return Run.load(path)
    return make_run(
        path,
        models=BACKBONES,
        defenses=defenses,
        attacks=attacks,
        eps=EPS,
        images=500,
        epochs=30,
        transfers=8,
    )


def _time(name: str, run: Run) -> None:
    """Make the report of a run in another process and print a line of the table."""
    page = run.path.with_suffix(".html")
    words = [sys.executable, "-m", "robustbench_tin", "report", str(run.path), "--out", str(page)]
    started = time.perf_counter()
    child = os.posix_spawn(sys.executable, words, {**os.environ})
    _, status, used = os.wait4(child, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"the report of {run.path} failed")
    figures = [
        *(f"{len(run.records)}", f"{run.plan.eval_images:,}", f"{seconds:.1f}"),
        *(f"{used.ru_utime + used.ru_stime:.1f}", f"{used.ru_maxrss / 1024:.0f}"),
        f"{page.stat().st_size / 2**20:.2f}",
    ]
    print(f"| {name} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
