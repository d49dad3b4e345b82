"""How many cells run side by side: as many as cores or GPUs, and memory, allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robustbench_tin import resources
from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.executor import Executor, SerialExecutor
from robustbench_tin.benchmarks.cells.process_executor import ProcessExecutor
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.flops import Cost

# Bytes a parameter while it trains: weight, gradient, two moments, checkpoint, variant.
_BYTES_PER_PARAMETER = 28
# Bytes of a process beside that: libraries, activations, images.
_BYTES_PER_PROCESS = 2 * 2**30


def choose_executor(context: CellContext, cells: Sequence[Cell]) -> Executor:
    """The executor for these cells.

    Args:
        context: the run; its request says how many jobs are asked for.
        cells: those that are not complete.

    Raises:
        InvalidSettingError: for several jobs under ``torchrun``, whose processes train each cell together.
    """
    asked = context.request.jobs
    if context.group.size > 1:
        if asked is not None and asked > 1:
            raise InvalidSettingError(
                f"jobs got {asked} under torchrun; expected 1: its processes share each cell"
            )
        return SerialExecutor(context.request.threads)
    gpus = resources.gpus(context.plan.device)
    cores = resources.cores()
    limit = asked or _fitting(cells, context.costs.costs, len(gpus) or cores, resources.free_memory())
    jobs = min(limit, len(cells))
    if jobs <= 1:
        return SerialExecutor(context.request.threads)
    return ProcessExecutor(jobs, context.request.threads or max(1, cores // jobs), gpus)


def _fitting(cells: Sequence[Cell], costs: Mapping[str, Cost], most: int, memory: int | None) -> int:
    """Number of cells at a time whose needs the memory meets, whichever they are; 1 at least."""
    needs = sorted((_bytes(costs[cell.model]) for cell in cells), reverse=True)
    jobs = 1
    while jobs < most and (memory is None or sum(needs[: jobs + 1]) <= memory):
        jobs += 1
    return jobs


def _bytes(cost: Cost) -> int:
    return _BYTES_PER_PROCESS + _BYTES_PER_PARAMETER * cost.parameters
