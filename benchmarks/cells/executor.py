"""Executors: they take the cells of a run to their end, one after the other or several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.complete_cell import complete_cell
from robustbench_tin.benchmarks.planning.plan import Cell


class Executor(Protocol):
    """Works on the cells of a run; the records do not depend on who does."""

    def complete(self, context: CellContext, cells: Sequence[Cell]) -> None:
        """Train and measure these cells; one that fails has records that say why.

        Args:
            context: the run, begun and locked by this process.
            cells: in the plan's order; a cell that others make images on comes before them.

        Raises:
            RobustTinError: for what stops the run and not a single cell, such as a full disk.
        """


@dataclass(frozen=True)
class SerialExecutor:
    """One cell after the other, in this process.

    Attributes:
        threads: CPU threads to compute with; None: as many as before.
    """

    threads: int | None = None

    def complete(self, context: CellContext, cells: Sequence[Cell]) -> None:
        """See :class:`Executor`."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            for cell in cells:
                complete_cell(context, cell)
        finally:
            torch.set_num_threads(before)
