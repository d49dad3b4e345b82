"""Complete one cell of a run: train or load it, measure it, check it."""

from __future__ import annotations

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.cell_records import CellRecords
from robustbench_tin.benchmarks.cells.measure_cell import measure_cell
from robustbench_tin.benchmarks.cells.train_cell import trained_classifier
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.shards import Shard
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader
from robustbench_tin.benchmarks.runs.current_part import forget_current
from robustbench_tin.benchmarks.runs.training_files import Trained
from robustbench_tin.errors import OutOfTimeError


def complete_cell(context: CellContext, cell: Cell, shortest_shard: float | None = None) -> list[Shard]:
    """Train and measure a cell; skip the parts that its run already has.

    A given model is loaded, not trained. A cell whose training fails gets records with the reason.

    Args:
        context: the run.
        cell: one of its cells.
        shortest_shard: least number of seconds of a shard; None: nothing is divided.

    Returns:
        Shards for others to measure before the cell is completed; empty if it is complete.

    Raises:
        RunError: if a given model's file is missing or has changed.
    """
    if context.plan.given:
        _measure_given(context, cell)
        return []
    classifier, trained = trained_classifier(context, cell)
    if trained.status == OK:
        return measure_cell(context, cell, classifier, trained, shortest_shard)
    CellRecords(context, cell, trained).save_untrained()
    return []


def complete_in_time(context: CellContext, cell: Cell, shortest_shard: float | None = None) -> list[Shard]:
    """Complete a cell as far as the run's time allows; the next run does the rest."""
    try:
        context.limit.require(0.0)
        return complete_cell(context, cell, shortest_shard)
    except OutOfTimeError as error:
        if context.limit.left > 0:
            context.reporter.finished(f"{cell.label}: stopped, because {error}")
        return []
    finally:
        forget_current(context.run, cell)


def _measure_given(context: CellContext, cell: Cell) -> None:
    """Measure a model that the user gave."""
    run = context.run
    module = CellLoader(run, context.dataset.image_size, context.plan.device).load(cell).bare
    trained = run.trained(cell)
    if trained is None:
        trained = Trained(seconds=None)
        run.save_trained(cell, trained)
    measure_cell(context, cell, module, trained)
