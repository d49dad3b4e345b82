"""Cells side by side: the same records as one after the other, and nothing lost when a process dies."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from commands import robust_tin, started

from robustbench_tin import attacks, bench, resources
from robustbench_tin.attacks.fgsm import FGSM
from robustbench_tin.benchmarks.cells import choose_executor as chooser
from robustbench_tin.benchmarks.cells import process_executor as executor
from robustbench_tin.benchmarks.cells.executor import SerialExecutor
from robustbench_tin.benchmarks.cells.process_executor import ProcessExecutor
from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.errors import RobustTinError
from robustbench_tin.models import backbones
from robustbench_tin.progress import LinesReporter

TIMES = ["seconds", "train_seconds"]
# A defense that kills its process in training, unless a file is there.
DEADLY = """
import os, signal
from dataclasses import dataclass
from pathlib import Path
from robustbench_tin import defenses

@defenses.register("deadly")
@dataclass(frozen=True)
class Deadly(defenses.Defense):
    \"\"\"Kills its process.\"\"\"

    def prepare(self, train, context):
        if not Path({harmless!r}).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return train
"""


@pytest.fixture
def grid(small: dict[str, Any]) -> dict[str, Any]:
    """Two cells, each of which takes a second."""
    return {**small, "seeds": "0,1", "threads": 1}


def figures(run: Run) -> pd.DataFrame:
    return pd.DataFrame(run.records).drop(columns=TIMES)


def test_side_by_side_gives_the_same_records_although_a_process_dies(
    grid: dict[str, Any], tmp_path: Path
) -> None:
    """One cell makes images on another and waits for it; a third kills its process, which fails it alone."""
    plugin, harmless = tmp_path / "deadly.py", tmp_path / "harmless"
    plugin.write_text(DEADLY.format(harmless=str(harmless)))
    source = f"fgsm-static:source={grid['models']}"
    asked = {**grid, "seeds": "0", "defenses": f"{source},none,deadly,bit-depth", "plugins": [plugin]}
    asked["keep_adversarial"] = 2
    run = bench(**{**asked, "out": tmp_path / "two"}, jobs=2)
    statuses = {name: set(of.status_code) for name, of in run.records.groupby("defense")}
    assert statuses.pop("deadly") == {"failed"}
    assert len(statuses) == 3
    assert set.union(*statuses.values()) == {"ok"}
    (told,) = set(run.records[run.records.defense == "deadly"].status)
    assert "its process was killed by signal 9" in told
    harmless.touch()
    said = LinesReporter()
    two = bench(**{**asked, "out": tmp_path / "two"}, jobs=1, reporter=said)
    assert two.complete
    assert f"Continued: 3 of 4 cells done; left: {grid['models']}/deadly/0" in said.lines
    one = bench(**{**asked, "out": tmp_path / "one"}, jobs=1)
    pd.testing.assert_frame_equal(figures(one), figures(two))
    kept = [file.relative_to(one.path) for file in sorted(one.path.glob("cells/*/measures/*.safetensors"))]
    assert len(kept) == 4 * 2 * 2  # cells, attacks, budgets
    assert all((one.path / file).read_bytes() == (two.path / file).read_bytes() for file in kept)


def test_what_no_other_process_can_load_runs_here(
    grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One cell needs one worker, which is as good as two here; left alone, one cell would have none.
    monkeypatch.setattr("robustbench_tin.benchmarks.bench.side_by_side", lambda *_: chooser.SideBySide(2, 1))

    @attacks.register("of-this-process")
    @dataclass(frozen=True, kw_only=True)
    class Own(FGSM):
        """FGSM by another name."""

    said = LinesReporter()
    try:
        run = bench(**{**grid, "seeds": "0", "attacks": "of-this-process"}, reporter=said)
    finally:
        attacks.registry._entries.pop("of-this-process", None)
    assert run.complete
    assert any("one after the other" in line and "of-this-process" in line for line in said.lines)


@pytest.mark.slow
def test_what_stops_one_worker_stops_the_run(grid: dict[str, Any], tmp_path: Path) -> None:
    plugin = tmp_path / "stops.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from robustbench_tin import defenses\n\n"
        "@defenses.register('stops')\n"
        "@dataclass(frozen=True)\n"
        "class Stops(defenses.Defense):\n"
        "    def prepare(self, train, context):\n"
        "        raise defenses.DataError('the moon is full')\n"
    )
    with pytest.raises(RobustTinError, match="the moon is full") as caught:
        bench(**{**grid, "defenses": "stops"}, plugins=[plugin], jobs=2)
    assert caught.value.exit_code == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_no_worker_outlives_the_command(grid: dict[str, Any], tmp_path: Path, number: int) -> None:
    plugin, pids = tmp_path / "slow.py", tmp_path / "pids"
    pids.mkdir()
    plugin.write_text(
        "import os, time\n"
        "from dataclasses import dataclass\n"
        "from pathlib import Path\n"
        "from robustbench_tin import defenses\n\n"
        "@defenses.register('slow')\n"
        "@dataclass(frozen=True)\n"
        "class Slow(defenses.Defense):\n"
        "    def prepare(self, train, context):\n"
        f"        Path({str(pids)!r}, str(os.getpid())).touch()\n"
        "        time.sleep(600)\n"
    )
    words = ["--models", grid["models"], "--data", grid["data"], "--seeds", "0,1", "--defenses", "slow"]
    words += ["--eps", "0", "--out", tmp_path / "run", "--plugin", plugin, "--jobs", "2"]
    process = started("bench", *words, place=tmp_path)
    wait_until(lambda: len(list(pids.iterdir())) == 2)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    if number == signal.SIGINT:
        name = f"{grid['models']}/slow"
        said = (tmp_path / "stdout").read_text()
        assert f"Stopped: 0 of 2 cells done; left: {name}/0, {name}/1" in said
    told = (tmp_path / "stderr").read_text()
    assert process.exitcode == (-9 if number == signal.SIGKILL else 130), told
    wait_until(lambda: not any(Path("/proc", file.name).exists() for file in pids.iterdir()))


def wait_until(true: Any) -> None:
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("option", ["--jobs", "--threads"])
def test_jobs_and_threads_are_at_least_1(option: str) -> None:
    refused = robust_tin("bench", option, 0)
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [f"robust-tin: {option[2:]} got 0; expected 1 or more"]


@pytest.mark.parametrize(
    ("cores", "memory", "asked", "jobs", "threads"),
    [
        (2, None, None, 2, 1),
        (8, None, None, 3, 2),
        (8, 10 * 2**30, None, 3, 2),
        (8, 6 * 2**30, None, 2, 4),
        (8, 2**20, None, None, None),
        (1, None, None, None, None),
        (2, 2**20, 3, 3, 1),
        (8, None, 1, None, None),
    ],
)
def test_as_many_as_cores_and_memory_allow(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    memory: int | None,
    asked: int | None,
    jobs: int | None,
    threads: int | None,
) -> None:
    monkeypatch.setattr(resources, "cores", lambda: cores)
    monkeypatch.setattr(resources, "free_memory", lambda: memory)
    chosen = choose(jobs=asked, cells=3)
    assert (chosen.jobs, chosen.threads) == ((jobs, threads) if jobs is not None else (1, None))
    assert isinstance(chosen.executor, ProcessExecutor if jobs is not None else SerialExecutor)


def test_each_gpu_has_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "cores", lambda: 16)
    monkeypatch.setattr(resources, "free_memory", lambda: None)
    monkeypatch.setattr(resources, "gpus", lambda device: (0, 1))
    chosen = choose(jobs=None, cells=5, device="cuda").executor
    assert isinstance(chosen, ProcessExecutor)
    assert (chosen.jobs, chosen.threads, chosen.gpus) == (2, 8, (0, 1))


def test_under_torchrun_cells_share_their_processes() -> None:
    assert isinstance(choose(jobs=None, cells=2, processes=2).executor, SerialExecutor)
    with pytest.raises(RobustTinError, match="jobs got 2 under torchrun"):
        choose(jobs=2, cells=2, processes=2)


def choose(*, jobs: int | None, cells: int, device: str = "cpu", processes: int = 1) -> chooser.SideBySide:
    """The choice for cells of a network of 25 million parameters."""
    plan = SimpleNamespace(device=device, classes=1000, backbone=backbones.get)
    request = BenchConfig(jobs=jobs)
    waiting = [Cell("resnet50", "none", seed) for seed in range(cells)]
    return chooser.side_by_side(request, plan, waiting, processes)  # type: ignore[arg-type]


def test_a_cell_whose_worker_died_is_tried_again_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, lost = LinesReporter(), []
    cell = Cell("resnet50", "none", 0)
    run = SimpleNamespace(current_file=lambda cell: tmp_path / "now.json")
    pool = executor._Pool(SimpleNamespace(run=run, reporter=said), None, ())
    monkeypatch.setattr(executor, "save_dead", lambda context, cell, cause: lost.append((cell, cause)))
    for _ in range(3):
        pool._after_death(cell, "killed")
    assert pool._waiting == [cell, cell]
    assert said.lines == [f"{cell.label}: killed; retry {number} of 2" for number in (1, 2)]
    assert lost == [(cell, "killed")]
