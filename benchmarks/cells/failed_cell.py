"""A cell whose worker died: its missing measurements are recorded as failed."""

from __future__ import annotations

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.cell_progress import is_ok
from robustbench_tin.benchmarks.cells.cell_records import CellRecords
from robustbench_tin.benchmarks.codes.status import Status, StatusCode
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.training_files import Trained


def save_dead(context: CellContext, cell: Cell, why: str) -> None:
    """Record the missing measurements of a cell as failed, because its worker process died.

    Args:
        context: the run.
        cell: the cell.
        why: how the process ended.
    """
    status = Status.of(StatusCode.failed, why=why)
    trained = context.run.trained(cell)
    if trained is None:
        plan = context.plan
        trained = Trained(
            status=status,
            lr=plan.recipe(cell.model).lr,
            precision=plan.precision or "float32",
            network_size=plan.backbone(cell.model).check_size(
                context.dataset.image_size, plan.size_of(cell.model)
            ),
        )
        context.run.save_trained(cell, trained)
    records = CellRecords(context, cell, trained)
    for attack, eps in context.run.measures(cell):
        if not is_ok(context.run.record(cell, attack, eps)):
            records.save(attack, Measurement(eps, None, None, status, 0.0, 0, 0), None)
    context.reporter.warn(f"{cell.label}: {status}")
