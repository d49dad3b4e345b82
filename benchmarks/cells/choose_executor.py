"""Choose the number of cells that run in parallel: as many as cores or GPUs, and memory, allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_tin import resources
from robustbench_tin.benchmarks.cells.executor import Executor, SerialExecutor
from robustbench_tin.benchmarks.cells.process_executor import ProcessExecutor
from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.backbone import Backbone
from robustbench_tin.models.network import create_skeleton

# Bytes per parameter during training: weight, gradient, two moments, checkpoint, variant.
_BYTES_PER_PARAMETER = 28
# Bytes per process besides the parameters: libraries, activations, images.
_BYTES_PER_PROCESS = 2 * 2**30


@dataclass(frozen=True)
class SideBySide:
    """The number of parallel cells, and each one's share of the machine.

    Attributes:
        jobs: number of cells that run at a time.
        threads: number of CPU threads per cell; None: torch's current number.
        gpus: indices of the GPUs that the cells use.
    """

    jobs: int
    threads: int | None
    gpus: tuple[int, ...] = ()

    @property
    def executor(self) -> Executor:
        """The executor that runs the cells this way."""
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
    """
    asked = request.jobs
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
    needs = {name: _bytes(plan.backbone(name), plan.classes) for name in {cell.model for cell in cells}}
    largest = sorted((needs[cell.model] for cell in cells), reverse=True)
    jobs = 1
    while jobs < most and (memory is None or sum(largest[: jobs + 1]) <= memory):
        jobs += 1
    return jobs


def _bytes(backbone: Backbone, classes: int) -> int:
    skeleton = create_skeleton(backbone, classes, backbone.check_size(backbone.smallest))
    return _BYTES_PER_PROCESS + _BYTES_PER_PARAMETER * sum(each.numel() for each in skeleton.parameters())
