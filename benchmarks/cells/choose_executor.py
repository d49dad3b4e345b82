"""How many cells run side by side: as many as cores or GPUs, and memory, allow."""

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

# Bytes a parameter while it trains: weight, gradient, two moments, checkpoint, variant.
_BYTES_PER_PARAMETER = 28
# Bytes of a process beside that: libraries, activations, images.
_BYTES_PER_PROCESS = 2 * 2**30


@dataclass(frozen=True)
class SideBySide:
    """How cells share a machine.

    Attributes:
        jobs: number of cells at a time.
        threads: number of CPU threads of each; None: as many as torch has.
        gpus: numbers of the GPUs that they use.
    """

    jobs: int
    threads: int | None
    gpus: tuple[int, ...] = ()

    @property
    def executor(self) -> Executor:
        """What runs the cells so."""
        if self.jobs == 1:
            return SerialExecutor(self.threads)
        return ProcessExecutor(self.jobs, self.threads or 1, self.gpus)


def side_by_side(request: BenchConfig, plan: Plan, cells: Sequence[Cell], processes: int) -> SideBySide:
    """How many of these cells run at a time.

    Args:
        request: says how many jobs and threads are asked for.
        plan: of the run.
        cells: those that are not complete.
        processes: number of processes that train each cell together.

    Raises:
        InvalidSettingError: for several jobs under ``torchrun``, whose processes train each cell together.
    """
    asked = request.jobs
    if processes > 1:
        if asked is not None and asked > 1:
            raise InvalidSettingError(
                f"jobs got {asked} under torchrun; expected 1: its processes share each cell"
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
    """Number of cells at a time whose needs the memory meets, whichever they are; 1 at least."""
    needs = {name: _bytes(plan.backbone(name), plan.classes) for name in {cell.model for cell in cells}}
    largest = sorted((needs[cell.model] for cell in cells), reverse=True)
    jobs = 1
    while jobs < most and (memory is None or sum(largest[: jobs + 1]) <= memory):
        jobs += 1
    return jobs


def _bytes(backbone: Backbone, classes: int) -> int:
    skeleton = create_skeleton(backbone, classes, backbone.check_size(backbone.smallest))
    return _BYTES_PER_PROCESS + _BYTES_PER_PARAMETER * sum(each.numel() for each in skeleton.parameters())
