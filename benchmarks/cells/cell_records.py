"""The records of one cell: each holds a measurement and the facts of its run and its training."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.records import Record, make_record
from robustbench_tin.benchmarks.runs.training_files import Trained
from robustbench_tin.benchmarks.trust.measured import with_cause


@dataclass(frozen=True)
class CellRecords:
    """Writes the measurements of a cell into its run.

    Attributes:
        context: the run and its data.
        cell: the cell.
        trained: the facts of its training.
    """

    context: CellContext
    cell: Cell
    trained: Trained

    def save(self, attack: str, found: Measurement, above_chance: bool | None) -> Record:
        """Write a measurement into the run.

        Args:
            attack: canonical spec, or the measurement's name if it has no attack (``clean``, say).
            found: the measurement.
            above_chance: whether the clean accuracy is above chance; None for the clean measurement itself.

        Returns:
            The record as written.
        """
        cell, trained = self.cell, self.trained
        plan, dataset = self.context.plan, self.context.dataset
        record = make_record(
            found,
            model=cell.model,
            defense=cell.defense,
            seed=cell.seed,
            attack=attack,
            norm=plan.norm,
            eot=plan.eot,
            oblivious=plan.oblivious,
            eight_bit=plan.eight_bit,
            above_chance=above_chance,
            n=plan.eval_images,
            classes=plan.outputs_of(cell.model),
            data=plan.data,
            data_fingerprint=plan.data_fingerprint,
            measured_on=dataset.val.fingerprint,
            image_size=dataset.image_size,
            network_size=trained.network_size,
            epochs=None if plan.given else plan.epochs_of(cell.model),
            train_seconds=trained.seconds,
            train_precision=trained.precision,
            device=plan.device,
        )
        if plan.trust and record.status != OK:
            record = with_cause(record)
        return self.context.run.save_measure(cell, record, found)

    def save_untrained(self) -> None:
        """Write a record with the training's status for each measurement: the training failed."""
        for attack, eps in self.context.run.measures(self.cell):
            self.save(attack, Measurement(eps, None, None, self.trained.status, 0.0, 0, 0), None)
