"""Delete the damaged files of a run directory, so that the run does that work again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.files import DamagedError
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.progress import Reporter
from robustbench_tin.specs import eps_text


def repair(run: RunDirectory, reporter: Reporter) -> None:
    """Check every file of a run; delete each that is damaged or belongs to another cell, measurement or run.

    If a cell's weights are missing or replaced, its measurements are deleted, too, because they belong to
    those weights. Each deletion is reported. Weights are read once, which takes about 1 s per GB.

    Args:
        run: the run, locked by this process.
        reporter: shows a line for each deleted file.

    Raises:
        RunError: if a file cannot be read, for lack of permission for instance.
    """
    work = _Repair(run, reporter)
    for cell in run.plan.cells():
        work.cell(cell)
    work.transfers()


def repair_transfers(run: RunDirectory, reporter: Reporter) -> None:
    """Check only the transfers of a run, in the same way."""
    _Repair(run, reporter).transfers()


@dataclass(frozen=True)
class _Repair:
    run: RunDirectory
    reporter: Reporter

    def transfers(self) -> None:
        for file in self.run.transfers.files():
            again = "a transfer is left out until you run robust-tin transfer again"
            if not self._is_sound(again, partial(self.run.transfers.read, file)):
                self.run.transfers.drop(file)

    def cell(self, cell: Cell) -> None:
        again = f"{cell.label}: chosen again"
        if not self._is_sound(again, partial(self.run.search_variants, cell)):
            self.run.drop_search_variants(cell)
        again = f"{cell.label}: trained and measured again"
        if not self._is_sound(again, partial(self._look_at_training, cell)):
            self.run.drop_cell(cell)
            return
        for attack, eps in self.run.measures(cell):
            again = f"{cell.label}, {attack} at {eps_text(eps)}: measured again"
            if not self._is_sound(again, partial(self.run.record, cell, attack, eps)):
                self.run.drop_measure(cell, attack, eps)

    def _look_at_training(self, cell: Cell) -> None:
        """Check a cell's training and weights; a cell that is not trained yet must have no measurements."""
        trained = self.run.trained(cell)
        given = self.run.plan.given_model(cell.model)
        if trained is not None and trained.status == OK and given is None:
            self.run.checked_weights(cell)
        if trained is None and self.run.has_measures(cell):
            raise DamagedError(f"{cell.label} has measurements but no training.json")

    def _is_sound(self, again: str, look: Callable[[], object]) -> bool:
        try:
            look()
        except DamagedError as error:
            self.reporter.warn(f"{again}, because {error.cause}")
            return False
        return True
