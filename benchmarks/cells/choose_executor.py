"""Choose the executor, and the number of cells in parallel: as many as cores or GPUs, and memory, allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_tin import resources
from robustbench_tin.benchmarks.cells.executor import Executor, SerialExecutor
from robustbench_tin.benchmarks.cells.memory_needs import needed_memory
from robustbench_tin.benchmarks.cells.process_executor import ProcessExecutor
from robustbench_tin.benchmarks.cells.ray_cluster import check_gpus, check_installed
from robustbench_tin.benchmarks.cells.ray_executor import RayExecutor
from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.errors import InvalidSettingError


@dataclass(frozen=True)
class SideBySide:
    """The number of parallel cells, and each one's share of the machine.

    Attributes:
        jobs: number of cells that run at a time.
        threads: number of CPU threads per cell; None: torch's current number.
        gpus: indices of the GPUs that the cells use.
        on_ray: runs the cells on a Ray cluster instead of this machine.
    """

    jobs: int
    threads: int | None
    gpus: tuple[int, ...] = ()
    on_ray: RayExecutor | None = None

    @property
    def executor(self) -> Executor:
        """The executor that runs the cells this way."""
        if self.on_ray is not None:
            return self.on_ray
        if self.jobs == 1:
            return SerialExecutor(self.threads)
        return ProcessExecutor(self.jobs, self.threads or 1, self.gpus)


def side_by_side(request: BenchConfig, plan: Plan, cells: Sequence[Cell], processes: int) -> SideBySide:
    """Choose the number of these cells that run at a time.

    Args:
        request: the user's options, with the number of jobs and threads asked for.
        plan: the run's plan.
        cells: the cells that are not complete.
        processes: number of processes that train each cell together, under ``torchrun``.

    Raises:
        InvalidSettingError: if several jobs are asked for under ``torchrun``.
        RobustTinError: if Ray is asked for and not installed.
    """
    asked = request.jobs
    if request.executor == "ray":
        return _on_ray(request, plan, processes)
    if processes > 1:
        if asked is not None and asked > 1:
            raise InvalidSettingError(
                f"jobs got {asked} under torchrun; expected 1, because torchrun's processes share each cell"
            )
        return SideBySide(1, request.threads)
    gpus = resources.gpus(plan.device)
    cores = resources.cores()
    limit = asked or _fitting(plan, cells, len(gpus) or cores, resources.free_memory())
    jobs = min(limit, len(cells))
    if jobs <= 1:
        return SideBySide(1, request.threads)
    return SideBySide(jobs, request.threads or max(1, cores // jobs), gpus)


def _fitting(plan: Plan, cells: Sequence[Cell], most: int, memory: int | None) -> int:
    """Number of cells, at least 1, that fit into memory together even if they are the largest ones."""
    models = {cell.model for cell in cells}
    needs = {name: needed_memory(plan.backbone(name), plan.classes) for name in models}
    largest = sorted((needs[cell.model] for cell in cells), reverse=True)
    jobs = 1
    while jobs < most and (memory is None or sum(largest[: jobs + 1]) <= memory):
        jobs += 1
    return jobs


def _on_ray(request: BenchConfig, plan: Plan, processes: int) -> SideBySide:
    """Run the cells on a cluster; each computes with the CPUs and GPUs that its task declares."""
    if processes > 1:
        raise InvalidSettingError("executor got 'ray' under torchrun; expected local: each cell is one task")
    kind, _, index = plan.device.partition(":")
    if index:
        raise InvalidSettingError(
            f"device got '{plan.device}' with the executor ray; expected {kind}: Ray hands GPUs out"
        )
    check_installed()
    threads = request.threads or 1
    gpus = (1.0 if kind == "cuda" else 0.0) if request.gpus_per_cell is None else request.gpus_per_cell
    shortest = 60 * request.shard_minutes
    executor = RayExecutor(request.ray_address, threads, check_gpus(gpus), request.jobs, shortest)
    return SideBySide(request.jobs or 1, threads, on_ray=executor)
