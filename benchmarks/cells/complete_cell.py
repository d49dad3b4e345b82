"""Taking one cell of a run to its end: trained, measured, checked."""

from __future__ import annotations

from pathlib import Path

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.cell_records import CellRecords
from robustbench_tin.benchmarks.cells.measure_cell import measure_cell
from robustbench_tin.benchmarks.cells.train_cell import trained_classifier
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.progress import Reporter


def complete_cell(context: CellContext, cell: Cell) -> None:
    """Train a cell and measure it, as far as its run does not have that yet.

    A cell that cannot be trained gets records that say why.
    """
    classifier, trained = trained_classifier(context, cell)
    if trained.status == OK:
        measure_cell(context, cell, classifier, trained)
    else:
        CellRecords(context, cell, trained).save_untrained()


def complete_cell_of(path: Path, request: BenchConfig, cell: Cell, reporter: Reporter | None = None) -> None:
    """The same from data that another process can be sent; its caller began the run and holds the lock.

    Args:
        path: the run directory.
        request: as it was given to the process that began the run.
        cell: one of its plan.
        reporter: told how far it is; None: silent.

    Raises:
        RobustTinError: if the run cannot be read, or the request no longer be done.
    """
    context = CellContext.opened(path, request, reporter)
    with context.run.files.kept():
        complete_cell(context, cell)
