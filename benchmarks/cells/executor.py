"""Executors: they complete the cells of a run, one after the other or several at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.complete_cell import complete_in_time
from robustbench_tin.benchmarks.planning.defense_sources import source_cells
from robustbench_tin.benchmarks.planning.plan import Cell, Plan


class Executor(Protocol):
    """Completes the cells of a run; the records do not depend on the executor."""

    def complete(self, context: CellContext, cells: Sequence[Cell]) -> None:
        """Train and measure these cells; a cell that fails gets records with the reason.

        Args:
            context: the run, which this process has begun and locked.
            cells: the cells in the plan's order; a cell comes before the cells whose images are made on it.

        Raises:
            RobustTinError: for an error that stops the whole run, such as a full disk.
        """


@dataclass(frozen=True)
class SerialExecutor:
    """Completes one cell after the other, in this process.

    Attributes:
        threads: number of CPU threads; None: unchanged.
    """

    threads: int | None = None

    def complete(self, context: CellContext, cells: Sequence[Cell]) -> None:
        """See :class:`Executor`."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            for cell in cells:
                complete_in_time(context, cell)
        finally:
            torch.set_num_threads(before)


def next_cell(plan: Plan, waiting: Sequence[Cell], under_way: Collection[Cell | None]) -> Cell | None:
    """The first waiting cell whose source cells are done; None if all wait for others.

    Args:
        plan: the run's plan.
        waiting: cells that no worker has yet, in their order.
        under_way: cells that workers have.
    """
    for cell in waiting:
        if not any(source in under_way or source in waiting for source in source_cells(plan, cell)):
            return cell
    return None
