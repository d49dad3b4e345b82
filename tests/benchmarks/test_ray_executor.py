"""Cells on a cluster: the same records, a limit on repeated attempts, and needs that fit the nodes.

Most tests give the executor a stand-in for Ray, which answers as the real one does; two use a real cluster.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from robustbench_tin import bench
from robustbench_tin.benchmarks.cells import divided_cell, measure_cell, ray_executor
from robustbench_tin.benchmarks.cells.choose_executor import side_by_side
from robustbench_tin.benchmarks.cells.ray_cluster import Needs, within
from robustbench_tin.benchmarks.cells.ray_executor import RayExecutor
from robustbench_tin.benchmarks.cells.ray_task import Busy, Work, work_in_worker
from robustbench_tin.benchmarks.cells.worker_messages import Advanced, Ended
from robustbench_tin.benchmarks.measurement import blocks
from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.cell_claim import claimed
from robustbench_tin.errors import OutOfTimeError, RobustTinError
from robustbench_tin.models import backbones
from robustbench_tin.progress import LinesReporter

TIMES = ["seconds", "train_seconds"]
GIB = 2**30


class _RayError(Exception):
    pass


class _WorkerCrashedError(_RayError):
    pass


class _NodeDiedError(_RayError):
    pass


class _RayTaskError(_RayError):
    def __init__(self, text: str, cause: Exception | None = None) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass
class StandIn:
    """Runs tasks at once, in this process.

    Attributes:
        before: called with a cell and the number of its attempt; an error that it raises becomes the answer.
    """

    before: Callable[[Cell, int], None] = lambda cell, attempt: None
    given_out: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    exceptions = SimpleNamespace(RayError=_RayError, RayTaskError=_RayTaskError, NodeDiedError=_NodeDiedError)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0, "memory": 8.0 * GIB}}]

    def remote(self, task: Callable[..., Any]) -> Any:
        return SimpleNamespace(options=lambda **needs: SimpleNamespace(remote=self._run))

    def _run(self, assignment: Any, work: Work, limit: Any, mail: Any) -> Any:
        self.given_out.append(work.cell.defense)
        self.shards += [] if work.shard is None else [work.shard.name]
        try:
            self.before(work.cell, self.given_out.count(work.cell.defense))
            value = work_in_worker(assignment, work, limit, SimpleNamespace(send=lambda message: None))
        except _RayError as error:
            value = error
        return _Answer(value)

    def put(self, value: Any) -> Any:
        return value

    def wait(self, answers: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return answers[:1], answers[1:]

    def get(self, answer: Any, timeout: float = 0) -> Any:
        value = answer.value if isinstance(answer, _Answer) else answer
        if isinstance(value, Exception):
            raise value
        return value

    def cancel(self, answer: Any, force: bool) -> None:
        pass

    def kill(self, actor: Any) -> None:
        pass


@dataclass(eq=False)
class _Answer:
    value: Any


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """In the place of a cluster."""
    ray = StandIn()

    @contextmanager
    def connected(address: str | None) -> Iterator[StandIn]:
        yield ray

    take = SimpleNamespace(remote=lambda: [])
    monkeypatch.setattr(ray_executor, "connected", connected)
    monkeypatch.setattr(ray_executor, "open_mailbox", lambda ray: SimpleNamespace(take=take))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    monkeypatch.setattr(ray_executor, "_PATIENCE", 0.0)
    return ray


@pytest.fixture
def grid(small: dict[str, Any]) -> dict[str, Any]:
    """Two cells, each of which takes a second."""
    return {**small, "defenses": "none,bit-depth", "threads": 1}


def figures(run: Run) -> pd.DataFrame:
    return pd.DataFrame(run.records).drop(columns=TIMES)


def test_a_lost_task_is_given_out_again_and_changes_no_record(
    grid: dict[str, Any], stand_in: StandIn, tmp_path: Path
) -> None:
    def lose(cell: Cell, attempt: int) -> None:
        if cell.defense == "none" and attempt == 1:
            raise _WorkerCrashedError("the worker died")
        if cell.defense == "none" and attempt == 2:
            raise _NodeDiedError("the node died")
        if cell.defense == "none" and attempt == 3:
            raise _RayTaskError("an argument was lost", _RayError("its owner died"))

    stand_in.before, said = lose, LinesReporter()
    run = bench(**grid, executor="ray", reporter=said)
    assert stand_in.given_out.count("none") == 4
    assert sum("given out again (" in line for line in said.lines) == 3
    alone = bench(**{**grid, "out": tmp_path / "alone"})
    pd.testing.assert_frame_equal(figures(run), figures(alone))


def test_a_cell_that_kills_its_workers_is_one_failed_row(grid: dict[str, Any], stand_in: StandIn) -> None:
    def lose(cell: Cell, attempt: int) -> None:
        if cell.defense == "none":
            raise _WorkerCrashedError("the worker died")

    stand_in.before = lose
    run = bench(**grid, executor="ray")
    assert stand_in.given_out.count("none") == 3
    statuses = {name: set(of.status_code) for name, of in run.records.groupby("defense")}
    assert statuses == {"none": {"failed"}, "bit-depth": {"ok"}}
    (told,) = set(run.records[run.records.defense == "none"].status)
    assert "its Ray task was lost 3 times" in told


def test_a_defense_that_raises_is_not_tried_again(
    grid: dict[str, Any], stand_in: StandIn, tmp_path: Path
) -> None:
    plugin = tmp_path / "raises.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from robustbench_tin import defenses\n\n"
        "@defenses.register('raises')\n"
        "@dataclass(frozen=True)\n"
        "class Raises(defenses.Defense):\n"
        '    """Raises."""\n\n'
        "    def prepare(self, train, context):\n"
        "        raise ValueError('no such thing')\n"
    )
    run = bench(**{**grid, "defenses": "raises,none"}, plugins=[plugin], executor="ray")
    assert sorted(stand_in.given_out) == ["none", "raises"]
    assert set(run.records[run.records.defense == "raises"].status_code) == {"failed"}


def test_a_task_of_a_claimed_cell_says_so(grid: dict[str, Any], stand_in: StandIn, monkeypatch: Any) -> None:
    from robustbench_tin.benchmarks.cells import ray_task

    monkeypatch.setattr(ray_task, "_PATIENCE", 0.0)
    answers: list[Any] = []
    run_task = stand_in._run

    def held_once(assignment: Any, work: Work, *rest: Any) -> Any:
        if answers:
            return run_task(assignment, work, *rest)
        with claimed(assignment.path / "cells" / work.cell.slug, 0):
            answers.append(run_task(assignment, work, *rest))
        return answers[0]

    monkeypatch.setattr(stand_in, "_run", held_once)
    run = bench(**grid, executor="ray")
    assert isinstance(answers[0].value, Busy)
    assert run.complete


def test_a_node_with_other_versions_stops_the_run(
    grid: dict[str, Any], stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "versions", lambda: "robust-tin 0.0.1")
    with pytest.raises(RobustTinError, match="expected those of the command"):
        bench(**grid, executor="ray")


def test_a_worker_that_cannot_import_stops_the_run(grid: dict[str, Any], stand_in: StandIn) -> None:
    def fail(cell: Cell, attempt: int) -> None:
        raise _RayTaskError("task failed\nModuleNotFoundError: No module named 'robustbench_tin'")

    stand_in.before = fail
    with pytest.raises(RobustTinError, match="cannot run robust-tin: ModuleNotFoundError"):
        bench(**grid, executor="ray")


def test_without_ray_the_command_says_what_to_install(
    grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RobustTinError, match=r"install robustbench-tin\[ray\]"):
        bench(**grid, executor="ray")


def test_an_unknown_executor_is_refused() -> None:
    with pytest.raises(RobustTinError, match="executor got 'dask'; expected local or ray"):
        BenchConfig(executor="dask")


@pytest.mark.parametrize(
    ("node", "tasks"),
    [
        ({"CPU": 8.0, "memory": 32.0 * GIB}, 0),
        ({"CPU": 8.0, "GPU": 1.0, "memory": 32.0 * GIB}, 2),
        ({"CPU": 8.0, "GPU": 4.0, "memory": 32.0 * GIB}, 4),
        ({"CPU": 8.0, "GPU": 4.0, "memory": 9.0 * GIB}, 3),
    ],
)
def test_a_node_holds_what_its_scarcest_resource_allows(node: dict[str, float], tasks: int) -> None:
    assert Needs(cpus=2, gpus=0.5, memory=3 * GIB).fitting(node) == tasks


def test_a_cell_larger_than_every_node_is_alone_on_one() -> None:
    small = {"CPU": 4.0, "memory": 2.0 * GIB}
    needs = within(Needs(1, 0, 3 * GIB), [small, {"CPU": 1.0, "memory": 1.0 * GIB}])
    assert (needs.memory, needs.fitting(small)) == (2 * GIB, 1)


@pytest.mark.parametrize(
    ("options", "gpus"), [({}, 1.0), ({"gpus_per_cell": 0.5}, 0.5), ({"gpus_per_cell": 2}, 2.0)]
)
def test_a_cell_on_a_gpu_declares_it(options: dict[str, Any], gpus: float, stand_in: StandIn) -> None:
    assert chosen(device="cuda", **options) == RayExecutor(None, 1, gpus, shortest_shard=120.0)


@pytest.mark.parametrize(
    ("device", "options", "processes", "why"),
    [
        ("cuda:1", {}, 1, "Ray hands GPUs out"),
        ("cuda", {"gpus_per_cell": 1.5}, 1, "a part of 1, or a whole number"),
        ("cpu", {}, 2, "under torchrun"),
    ],
)
def test_what_ray_cannot_do_is_refused(
    device: str, options: dict[str, Any], processes: int, why: str, stand_in: StandIn
) -> None:
    with pytest.raises(RobustTinError, match=why):
        chosen(device=device, processes=processes, **options)


def chosen(*, device: str, processes: int = 1, **options: Any) -> Any:
    plan = SimpleNamespace(device=device, classes=10, backbone=backbones.get)
    request = BenchConfig(executor="ray", **options)
    return side_by_side(request, plan, [Cell("resnet50", "none", 0)], processes).executor  # type: ignore[arg-type]


def test_a_mailbox_that_dies_costs_lines_only(
    grid: dict[str, Any], stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([_RayError("the actor died"), [(0, Advanced(7, 1)), (0, Ended(7))]])
    take = SimpleNamespace(remote=lambda: next(answers, []))
    monkeypatch.setattr(ray_executor, "open_mailbox", lambda ray: SimpleNamespace(take=take))
    assert bench(**grid, executor="ray").complete
    assert next(answers, None) is None


def test_a_cluster_that_is_lost_is_one_clear_line(grid: dict[str, Any], stand_in: StandIn) -> None:
    def wait(answers: list[Any], timeout: float) -> Any:
        raise _RayError("the head node is gone")

    stand_in.wait = wait  # type: ignore[method-assign]
    with pytest.raises(RobustTinError, match="lost the Ray cluster"):
        bench(**grid, executor="ray")


def test_nothing_is_given_out_after_the_last_hour(
    grid: dict[str, Any], stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutOfTimeError, match="0 of 2 cells done"):
        bench(**grid, executor="ray", max_hours=1e-9)
    assert stand_in.given_out == []


@pytest.fixture
def blocks_of_8(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 images are three blocks of two batches."""
    monkeypatch.setattr(blocks, "BLOCK", 8)
    monkeypatch.setattr(measure_cell, "evaluation_batch_size", lambda device: 4)


ATTACKS = "fgsm,pgd:steps=2,autoattack:queries=2,steps=1,targets=1,fast:most_stages=3"


@pytest.mark.usefixtures("blocks_of_8")
def test_shards_on_several_workers_give_the_records_of_one(
    grid: dict[str, Any], stand_in: StandIn, tmp_path: Path
) -> None:
    asked = {**grid, "defenses": "random-resize", "attacks": ATTACKS, "worst_case": True}
    alone = bench(**{**asked, "out": tmp_path / "alone"})
    run = bench(**asked, executor="ray", shard_minutes=0)
    # PGD at all budgets, the others at each of two; fast by budget alone.
    assert len(stand_in.shards) == len(set(stand_in.shards)) == 3 + 3 * 2 + 2
    pd.testing.assert_frame_equal(figures(run), figures(alone))
    for cell in run.plan.cells():
        assert not (run.cell_directory(cell) / "parts").exists()
        for attack, eps in run.measures(cell):
            pd.testing.assert_frame_equal(run.outcomes(cell, attack, eps), alone.outcomes(cell, attack, eps))


@pytest.mark.usefixtures("blocks_of_8")
@pytest.mark.parametrize("fault", ["lost", "no part"])
def test_a_cell_without_all_its_shards_is_measured_undivided(
    grid: dict[str, Any],
    stand_in: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    asked = {**grid, "defenses": "none", "attacks": "pgd:steps=2,square:queries=6"}
    alone = bench(**{**asked, "out": tmp_path / "alone"})
    if fault == "lost":
        run_task = stand_in._run

        def lose(assignment: Any, work: Work, *rest: Any) -> Any:
            if work.shard is not None and work.shard.first == 8:
                return _Answer(_WorkerCrashedError("the worker died"))
            return run_task(assignment, work, *rest)

        monkeypatch.setattr(stand_in, "_run", lose)
    else:
        monkeypatch.setattr(divided_cell, "measure_shard", lambda *given: None)
    run = bench(**asked, executor="ray", shard_minutes=0)
    pd.testing.assert_frame_equal(figures(run), figures(alone))


@pytest.mark.slow
def test_a_real_cluster_gives_the_same_records(grid: dict[str, Any], tmp_path: Path) -> None:
    """One cell makes images on another, and waits for it."""
    pytest.importorskip("ray", reason="needs robustbench-tin[ray]")
    asked = {**grid, "defenses": f"fgsm-static:source={grid['models']},none,bit-depth"}
    one = bench(**{**asked, "out": tmp_path / "one"})
    two = bench(**{**asked, "out": tmp_path / "two"}, executor="ray")
    assert two.complete
    pd.testing.assert_frame_equal(figures(one), figures(two))


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_clear_line(grid: dict[str, Any]) -> None:
    pytest.importorskip("ray", reason="needs robustbench-tin[ray]")
    with pytest.raises(RobustTinError, match="cannot connect to a Ray cluster"):
        bench(**grid, executor="ray", ray_address="127.0.0.1:1")
