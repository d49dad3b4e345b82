"""A plan on a Ray cluster of three nodes on this machine: records after losses, and the cost of Ray.

``python perf/cluster.py faults --runs 20`` runs a plan of 12 cells and 48 measurements undisturbed. Then it
repeats the plan, kills a node and two workers at random moments, and compares every record and every result
per image. ``python perf/cluster.py overhead`` compares the times of a plan with one worker, on Ray and in one
process. Needs ``robustbench-tin[ray]``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

NODES = 3
# Facts of a record that differ between two runs of one machine, too: times, and digests of files that hold
# times or, like weights, a table whose order is random. Weights are compared themselves.
VARYING = {"seconds", "train_seconds", "digest", "weights_digest"}
TINY = [
    *("--models", "timm:test_resnet", "--data", "demo", "--classes", "3", "--train-per-class", "16"),
    *("--eval-images", "24", "--epochs", "2", "--device", "cpu", "--threads", "1", "--deterministic"),
]
# 4 seeds × 3 defenses, one of which waits for a cell of another; clean and three budgets, each a shard.
GRID = [
    *("--seeds", "0,1,2,3", "--defenses", "none,bit-depth,fgsm-static:source=timm:test_resnet"),
    *("--attacks", "autoattack:steps=3,targets=1,queries=20", "--eps", "0,1/255,2/255,8/255"),
    *("--no-trust", "--checkpoint-minutes", "0"),
]
ON_RAY = ["--executor", "ray", "--shard-minutes", "0"]
ON_ONE = ("--executor", "ray", "--ray-address", "local", "--jobs", "1")
MEASURES = 48
# A node and two workers.
KILLED = 3


@contextmanager
def cluster() -> Iterator[Any]:
    """Three nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=node_arguments())
    try:
        for _ in range(NODES - 1):
            made.add_node(**node_arguments())
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()


def node_arguments() -> dict[str, Any]:
    return {"num_cpus": 1, "memory": 4 * 2**30, "object_store_memory": 80 * 2**20, "include_dashboard": False}


def start(out: Path, options: list[str], *where: str, log: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    """``robust-tin bench`` in a process of its own."""
    command = [sys.executable, "-m", "robustbench_tin", "bench", *TINY, *options, "--out", str(out), *where]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    """The output of the command, which must have succeeded."""
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"bench ended with code {process.returncode}:\n{said}")
    return said


def contents(run: Path) -> dict[str, Any]:
    """Every record without times, every result per image, weights, and the tables, by file."""
    from pyarrow import parquet
    from safetensors.numpy import load_file

    found: dict[str, Any] = {}
    for file in sorted(run.glob("cells/*/measures/*")):
        name = str(file.relative_to(run))
        if file.suffix == ".json":
            record = json.loads(file.read_text())
            found[name] = {key: value for key, value in record.items() if key not in VARYING}
        else:
            found[name] = parquet.read_table(file).to_pydict()
    for file in sorted(run.glob("cells/*/weights.safetensors")):
        tensors = sorted(load_file(file).items())
        found[str(file.relative_to(run))] = [(name, tensor.tobytes()) for name, tensor in tensors]
    return found | {"table": (run / "results.md").read_text()}


def workers(of: Any) -> list[int]:
    """Processes of the cluster's nodes that work on a cell now."""
    found = []
    for node in of.list_all_nodes():
        raylet = node.all_processes["raylet"][0].process.pid
        for child in children(raylet):
            with suppress(OSError):
                if b"ray::timm" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            if entry.name.isdigit() and parent_of(entry) == parent:
                found.append(int(entry.name))
    return found


def parent_of(entry: Path) -> int:
    return int((entry / "stat").read_text().rpartition(")")[2].split()[1])


def kill_worker(of: Any, chance: random.Random) -> str:
    busy = workers(of)
    if not busy:
        return ""
    chosen = chance.choice(busy)
    with suppress(ProcessLookupError):
        os.kill(chosen, signal.SIGKILL)
        return f"worker {chosen}"
    return ""


def kill_node(of: Any, chance: random.Random) -> str:
    """Kill a node other than the head at once, and let another join."""
    chosen = chance.choice(sorted(of.worker_nodes, key=lambda node: str(node.node_id)))
    of.remove_node(chosen, allow_graceful=False)
    of.add_node(**node_arguments())
    return f"node {chosen.node_id[:8]}"


def disturbed(of: Any, process: subprocess.Popen[str], out: Path, chance: random.Random) -> list[str]:
    """Kill a node and two workers, each at a random moment after a random number of measurements."""
    begun, killed = time.monotonic(), []
    due: list[tuple[int, Callable[[Any, random.Random], str]]] = sorted(
        ((chance.randrange(MEASURES - 8), kill) for kill in (kill_node, kill_worker, kill_worker)),
        key=lambda each: each[0],
    )
    while due and process.poll() is None:
        if len(list(out.glob("cells/*/measures/*.json"))) >= due[0][0]:
            time.sleep(chance.uniform(0, 2))
            if told := due[0][1](of, chance):
                killed.append(f"{told} at {time.monotonic() - begun:.1f} s")
                due.pop(0)
        time.sleep(0.02)
    return killed


def faults(runs: int, seed: int) -> int:
    """Print a line a run until this number lost all three; returns the number whose records differ."""
    wrong = full = number = 0
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        begun = time.monotonic()
        ended(start(root / "alone", GRID, "--jobs", "1"))
        seconds = time.monotonic() - begun
        expected = contents(root / "alone")
        records = [name for name in expected if name.endswith(".json")]
        assert len(records) == MEASURES, f"{len(records)} measurements; expected {MEASURES}"
        print(f"one process, undisturbed: {seconds:.0f} s", flush=True)
        while full < runs:
            same, killed = one_run(root / f"run-{number}", expected, random.Random(seed + number))
            wrong += not same
            # A run may end before a worker is due, or while none is busy.
            full += killed == KILLED
            number += 1
    print(
        f"{number - wrong} of {number} runs ended with the records and the table of the undisturbed run;"
        f" {full} lost a node and two workers"
    )
    return wrong


def one_run(out: Path, expected: dict[str, Any], chance: random.Random) -> tuple[bool, int]:
    """A disturbed run: whether its records are the expected ones, and the number of processes killed."""
    with cluster() as of:
        begun = time.monotonic()
        command = start(out, GRID, *ON_RAY, "--ray-address", of.address)
        killed = disturbed(of, command, out, chance)
        said = ended(command)
        found = contents(out)
        again = len(re.findall(r"given out again", said))
        what = "same" if found == expected else f"OTHER: {differences(expected, found)}"
        print(
            f"{out.name}: {time.monotonic() - begun:.0f} s, {'; '.join(killed)}; {again} again; {what}",
            flush=True,
        )
    shutil.rmtree(out)
    return found == expected, len(killed)


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return sorted(name for name in expected | found if expected.get(name) != found.get(name))[:4]


@dataclass(frozen=True)
class Cost:
    """The totals of a command and all processes that it started.

    Attributes:
        seconds: wall-clock time.
        processor: processor time, to the last look at each process.
    """

    seconds: float
    processor: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.processor:.1f} s of processor time"


def overhead(cells: int, repeats: int) -> None:
    """The times of a plan on Ray with one worker, and in one process."""
    options = [*("--attacks", "pgd:steps=20", "--eps", "0,8/255", "--no-trust"), "--seeds"]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        seeds = ",".join(map(str, range(cells)))
        taken: dict[str, list[Cost]] = {"local": [], "ray": []}
        for repeat in range(repeats):
            for name, where in (("local", ("--jobs", "1")), ("ray", ON_ONE)):
                taken[name].append(cost(root / f"{name}-{repeat}", [*options, seeds], *where))
                print(f"{cells} cells, {name}: {taken[name][-1]}", flush=True)
    for of in ("seconds", "processor"):
        local, ray = (median(getattr(each, of) for each in taken[name]) for name in ("local", "ray"))
        print(f"{of}: local {local:.1f}, ray {ray:.1f}, ratio {ray / local:.3f}")


def cost(out: Path, options: list[str], *where: str) -> Cost:
    begun, known = time.monotonic(), dict[int, float]()
    with tempfile.TemporaryFile("w+") as log:
        process = start(out, options, *where, log=log)
        while process.poll() is None:
            for one in [process.pid, *descendants(process.pid)]:
                known[one] = max(known.get(one, 0.0), processor_seconds(one))
            time.sleep(0.25)
        log.seek(0)
        if process.returncode:
            raise SystemExit(f"bench ended with code {process.returncode}:\n{log.read()}")
    return Cost(time.monotonic() - begun, sum(known.values()))


def descendants(parent: int) -> list[int]:
    return [one for child in children(parent) for one in (child, *descendants(child))]


def processor_seconds(process: int) -> float:
    """Its own processor time; 0 if it has ended."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("what", choices=("faults", "overhead"))
    asked.add_argument("--runs", type=int, default=20, help="disturbed runs, or pairs of runs to time")
    asked.add_argument("--seed", type=int, default=0, help="of the moments at which something is killed")
    asked.add_argument(
        "--cells", type=int, default=400, help="of the plan whose time is compared; each takes 1 s"
    )
    given = asked.parse_args()
    if given.what == "faults":
        return int(faults(given.runs, given.seed) > 0)
    overhead(given.cells, given.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
