"""``perf/gpu/run``: one phase after the other, each ended at its limit, none able to stop the next."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from perf.gpu import results

# Seconds that an ended phase has to close its files.
_GRACE = 5.0


@dataclass(frozen=True)
class Phase:
    """A module beside this one, and how many seconds it may take; None: all that are left."""

    name: str
    seconds: float | None


PHASES = (
    Phase("correct", 150),
    Phase("training", 90),
    Phase("attacks", 270),
    Phase("records", None),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="perf/gpu/run",
        description="Check and measure robust-tin on a GPU. After every row, results are in OUT/results.md"
        " and OUT/results.json; OUT/log.txt has the output of the phases.",
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="all phases together (default 12)")
    parser.add_argument(
        "--phases", default=",".join(phase.name for phase in PHASES), help="which, by name (default all)"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="every phase at toy size, on the CPU if there is no GPU"
    )
    parser.add_argument(
        "--data", default=os.environ.get("ROBUST_TIN_GPU_DATA"), help="Tiny ImageNet (default: the demo set)"
    )
    parser.add_argument(
        "--presets", default="robust,scratch", help="presets that records trains (default robust,scratch)"
    )
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-results")))
    given = parser.parse_args()
    names = given.phases.split(",")
    unknown = sorted(set(names) - {phase.name for phase in PHASES})
    if unknown:
        parser.error(f"--phases got {', '.join(unknown)}; expected some of {parser.get_default('phases')}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.smoke:
        parser.error("no GPU here; --smoke shows on the CPU that everything runs")
    given.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * given.minutes
    statuses = {}
    with (given.out / "log.txt").open("a", encoding="utf-8") as log:
        for phase in (phase for phase in PHASES if phase.name in names):
            left = deadline - time.monotonic() - _GRACE
            seconds = left if phase.seconds is None or given.smoke else min(left, phase.seconds)
            started = time.monotonic()
            status = "not started: no time was left"
            if seconds > 0:
                print(f"{phase.name}: at most {seconds:.0f} s", flush=True)
                status = _run(phase.name, seconds, device, given, log)
            results.end(given.out, phase.name, status, time.monotonic() - started)
            statuses[phase.name] = results.read(given.out)["phases"][phase.name]["status"]
            print(f"{phase.name}: {statuses[phase.name]}, {time.monotonic() - started:.0f} s", flush=True)
    print((given.out / results.MARKDOWN_NAME).read_text(encoding="utf-8"))
    return int(any(status != "done" for status in statuses.values()))


def _run(name: str, seconds: float, device: str, given: argparse.Namespace, log) -> str:
    """Run a phase in a process of its own; how it ended."""
    words = [sys.executable, "-u", "-m", f"perf.gpu.{name}", "--out", str(given.out), "--device", device]
    words += ["--seconds", f"{seconds:.0f}", "--data", given.data or "demo"]
    environment = dict(os.environ, ROBUST_TIN_GPU_PRESETS=given.presets)
    if device == "cpu":  # toys gain nothing by a second thread
        environment.setdefault("OMP_NUM_THREADS", "1")
    process = subprocess.Popen(
        words + ["--smoke"] * given.smoke,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=environment,
    )
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return f"ended at its limit of {seconds:.0f} s"
    except BaseException:
        _end(process)
        raise
    return "done" if code == 0 else f"failed with exit status {code}; the log says why"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a phase and all that it started."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
            process.wait(_GRACE)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    sys.exit(main())
