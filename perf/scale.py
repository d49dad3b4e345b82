"""Time and memory of the commands that read a large run: ``python perf/scale.py``.

The results are made up (perf/made_up_run.py): 200 measurements of 500,000 images, in four cells. Each command
runs in a process of its own. ``--plan N`` instead times a plan of N cells: making it, its costs, its order.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

EPS = (0.0, *(number / 255 for number in range(1, 8)))
BACKBONES = (
    *("vgg16", "vgg19", "mobilenet", "resnet50", "inceptionv3", "nasnetlarge"),
    *("densenet121", "densenet169", "densenet201", "timm:resnet18"),
)
ATTACKS = ("fgsm", "pgd", "mi-fgsm", "apgd-ce", "apgd-dlr", "fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=500_000)
    parser.add_argument("--keep", type=Path, help="directory for the run; it is used again")
    parser.add_argument("--plan", type=int, help="number of cells of a plan, at most 100,000")
    arguments = parser.parse_args()
    if arguments.plan:
        _time_plan(arguments.plan)
        return
    with tempfile.TemporaryDirectory() as scratch:
        _time_run(arguments.keep or Path(scratch), arguments.images)


def _time_run(place: Path, images: int) -> None:
    run, baseline = place / "run", place / "baseline.json"
    if not (run / "results.md").exists():
        # In a process of its own: a process's earlier memory is counted as its children's.
        maker = multiprocessing.get_context("spawn").Process(target=_make, args=(run, images))
        maker.start()
        maker.join()
    print("| command | seconds | CPU seconds | memory, MiB |\n|---|---:|---:|---:|", flush=True)
    _time(["show", run])
    _time(["runs", run])
    _time(["report", run, "--out", place / "report.html"])
    baseline.unlink(missing_ok=True)
    _time(["baseline", run, "--out", baseline])
    _time(["check", run, "--baseline", baseline])


def _make(run: Path, images: int) -> None:
    from perf.made_up_run import make_run

    made = make_run(
        run,
        models=("resnet50", "mobilenet"),
        defenses=("none", "fgsm-at"),
        attacks=ATTACKS,
        eps=EPS,
        images=images,
        classes=200,
        transfers=0,
    )
    print(f"{len(made.records)} measurements of {images:,} images made", flush=True)


def _time(words: Sequence[object]) -> None:
    """Run a command in another process and print a line of the table."""
    command = [sys.executable, "-m", "robustbench_tin", *map(str, words)]
    started = time.monotonic()
    nowhere = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    child = os.posix_spawn(sys.executable, command, {**os.environ}, file_actions=[nowhere])
    _, status, used = os.wait4(child, 0)
    seconds = time.monotonic() - started
    failed = f" (exit status {os.waitstatus_to_exitcode(status)})" if status else ""
    cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(f"| {words[0]}{failed} | {seconds:.1f} | {cpu:.1f} | {memory:.0f} |", flush=True)


def _time_plan(cells: int) -> None:
    """A plan of this number of cells: 10 backbones, 10 defenses, and seeds."""
    from robustbench_tin.benchmarks.cells.pass_times import PassTime, PassTimes, StepTime
    from robustbench_tin.benchmarks.cells.time_estimate import Estimate
    from robustbench_tin.benchmarks.planning.plan import Plan

    started = time.process_time()
    plan = Plan(
        data="made-up",
        data_fingerprint="0123456789abcdef",
        classes=1000,
        train_images=10_000_000,
        eval_images=10_000,
        models=BACKBONES,
        defenses=tuple(f"augment:rotation={number}" for number in range(10)),
        seeds=tuple(range(max(1, cells // 100))),
        attacks=("fgsm", "pgd"),
        eps=(0.0, 4 / 255, 8 / 255),
        norm="linf",
        search="fixed",
        epochs=(90,) * 10,
        batch_size=256,
        weights=None,
        device="cuda",
        plugins=(),
    )
    seconds = PassTime(0.002, 1e-4)
    passes = PassTimes(seconds, {"all": StepTime(seconds, 25_000_000)})
    costs = Estimate(dict.fromkeys(plan.models, passes), plan)
    made = time.process_time()
    expected = costs.expected(1000)
    estimated = time.process_time()
    text = expected.model_dump_json()
    end = costs.side_by_side(1000)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(expected.cells):,} cells: made in {made - started:.1f} s, costs in {estimated - made:.1f} s")
    print(
        f"order and end on 1,000 GPUs in {time.process_time() - estimated:.1f} s: {end / 3600:.0f} h of work"
    )
    print(f"costs.json {len(text) / 2**20:.1f} MiB, memory {memory:.0f} MiB")


if __name__ == "__main__":
    main()
