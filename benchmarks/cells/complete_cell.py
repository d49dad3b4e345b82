"""Taking one cell of a run to its end: trained, measured, checked."""

from __future__ import annotations

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.cell_records import CellRecords
from robustbench_tin.benchmarks.cells.measure_cell import measure_cell
from robustbench_tin.benchmarks.cells.train_cell import trained_classifier
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.planning.plan import Cell


def complete_cell(context: CellContext, cell: Cell) -> None:
    """Train a cell and measure it, as far as its run does not have that yet.

    A cell that cannot be trained gets records that say why.
    """
    classifier, trained = trained_classifier(context, cell)
    if trained.status == OK:
        measure_cell(context, cell, classifier, trained)
    else:
        CellRecords(context, cell, trained).save_untrained()
