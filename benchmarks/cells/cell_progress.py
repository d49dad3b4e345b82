"""Progress of a run's cells: which measurements are taken, and which are left."""

from __future__ import annotations

from typing import TypeGuard

from robustbench_tin.attacks.acceleration.variant_cache import VariantCache
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.planning.cell_names import cell_name
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.records import CLEAN, Record
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.benchmarks.trust.measured import gets_verdict
from robustbench_tin.specs import eps_text
from robustbench_tin.text import counted

# Maximum number of cells that one line names.
_MOST_NAMED = 6


def is_ok(record: Record | None) -> TypeGuard[Record]:
    """Whether the measurement succeeded."""
    return record is not None and record.status == OK


def is_complete(run: RunDirectory, cell: Cell) -> bool:
    """Whether a cell is complete: every measurement is taken and, if the plan asks for it, trust-checked."""
    records = [run.record(cell, attack, eps) for attack, eps in run.measures(cell)]
    if misled_attacks(run, cell, VariantCache(run.search_variants(cell))):
        return False
    return all(
        record is not None and run.is_settled(record) and not _lacks_verdict(run, record)
        for record in records
    )


def is_cut_short(run: RunDirectory, cell: Cell) -> bool:
    """Whether work on a cell stopped early: a measurement was not attempted, or not trust-checked."""
    records = [run.record(cell, attack, eps) for attack, eps in run.measures(cell)]
    return any(record is None or _lacks_verdict(run, record) for record in records)


def misled_attacks(run: RunDirectory, cell: Cell, variants: VariantCache) -> list[str]:
    """The attacks whose search used a variant that was later found to be wrong."""
    return [spec for spec in run.plan.attacks_of(cell) if _is_misled(run, cell, spec, variants)]


def summary(run: RunDirectory, cell: Cell) -> str:
    """The cell's top-1 accuracies in one line."""
    parts = []
    for attack, eps in run.measures(cell):
        record = run.record(cell, attack, eps)
        if record is not None and record.top1 is not None:
            name = CLEAN if attack == CLEAN else f"{attack}@{eps_text(eps)}"
            parts.append(f"{name} {100 * record.top1:.1f}")
    return "top-1 " + ", ".join(parts) if parts else "nothing measured"


def state_of(run: RunDirectory) -> str:
    """The run's progress in one line for people: cells done, and cells left."""
    cells = list(run.plan.cells())
    left = [cell for cell in cells if not is_complete(run, cell)]
    named = [_named(run, cell) for cell in left[:_MOST_NAMED]]
    if len(left) > _MOST_NAMED:
        named.append(f"{len(left) - _MOST_NAMED} more")
    done = f"{len(cells) - len(left)} of {counted(len(cells), 'cell')} done"
    return f"{done}; left: {', '.join(named)}" if left else done


def _named(run: RunDirectory, cell: Cell) -> str:
    """The name of an incomplete cell, with a note if it is already trained."""
    trained = run.trained(cell)
    is_trained = trained is not None and trained.status == OK and not run.plan.given
    return f"{cell_name(cell)}{' (trained)' if is_trained else ''}"


def _lacks_verdict(run: RunDirectory, record: Record) -> bool:
    return run.plan.trust and gets_verdict(record) and record.trust is None


def _is_misled(run: RunDirectory, cell: Cell, spec: str, variants: VariantCache) -> bool:
    records = (run.record(cell, spec, eps) for eps in run.plan.attacked_eps)
    return any(record is not None and variants.misled(record.search) for record in records)
