"""The run directory: a plan, its cells, their results and records; each file is whole or absent.

::

    RUN/plan.json
    RUN/labels.json                           classes, and the label of each evaluated image
    RUN/cells/CELL/.lock                      held while a task of a cluster writes the cell's files
    RUN/cells/CELL/weights.safetensors
    RUN/cells/CELL/checkpoint.safetensors     exists during the training, and after a failed one
    RUN/cells/CELL/curves.csv                 training curves, one row per epoch
    RUN/cells/CELL/training.json              exists once the cell is trained
    RUN/cells/CELL/search.json                precision and variant that were timed to be fastest for searches
    RUN/cells/CELL/measures/MEASURE.parquet   results per image: correct or not, predicted class
    RUN/cells/CELL/measures/MEASURE.safetensors  adversarial images, if asked for
    RUN/cells/CELL/measures/MEASURE.json      the record; exists once the measurement is taken
    RUN/tensorboard/CELL/...                  the curves as TensorBoard events, if asked for
    RUN/tracking/NAME.json                    if asked for: values sent to a tracker, and its run names
    RUN/transfer/...                          if asked for: images made on other cells (transfer_records.py)
    RUN/results.md, results.csv, results.json  rendered from the records when the run ends
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from robustbench_tin.atomic import remove_abandoned
from robustbench_tin.benchmarks.codes.status import OK, StatusCode
from robustbench_tin.benchmarks.planning.plan import Cell, Plan, eps_slug, slug
from robustbench_tin.benchmarks.runs.adversarial_images import (
    AdversarialImages,
    read_adversarial,
    require_digest,
    write_adversarial,
)
from robustbench_tin.benchmarks.runs.files import (
    DamagedError,
    read_json,
)
from robustbench_tin.benchmarks.runs.mirror import local_run
from robustbench_tin.benchmarks.runs.records import (
    CERTIFIED,
    CLEAN,
    WORST_CASE,
    Record,
    to_frame,
)
from robustbench_tin.benchmarks.runs.resumable_output import holds_something, locked
from robustbench_tin.benchmarks.runs.store import address_of
from robustbench_tin.benchmarks.runs.training_files import TrainingFiles
from robustbench_tin.benchmarks.runs.transfer_records import TransferFiles
from robustbench_tin.errors import RunError
from robustbench_tin.specs import eps_text

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.measurement.results import Measurement

PLAN_FILE = "plan.json"
# The fields that a record must share with its run's plan.
_OF_PLAN = ("norm", "eot", "oblivious", "eight_bit", "data", "data_fingerprint")


class RunDirectory(TrainingFiles):
    """The files of a run: trainings and measurements.

    Attributes:
        path: the run directory.
        plan: the run's plan.
        files: reads and writes the files; keeps written ones in memory while the run is locked.
    """

    @classmethod
    @contextmanager
    def begun(cls, path: Path, plan: Plan) -> Iterator[Self]:
        """Lock a directory; start a run in it, or continue the run of the same plan there.

        Leftovers of a killed process, such as temporary files, are removed.

        Raises:
            RunError: if the directory has another plan's run or something else, another process works on it,
                or it cannot be written.
        """
        if not (path / PLAN_FILE).exists() and holds_something(path):
            what = "is not empty and is not a run" if path.is_dir() else "is a file"
            raise RunError(f"run directory '{path}' {what}; choose another --out")
        run = cls(path, plan)
        with run.locked():
            remove_abandoned(path)
            if (path / PLAN_FILE).exists():
                _require_same(path, plan)
            else:
                run.files.write(path / PLAN_FILE, plan)
            yield run

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a run for reading.

        Raises:
            RunError: if the directory is not a run, or its plan cannot be read.
        """
        address, path = address_of(path), local_run(path)
        file = path / PLAN_FILE
        if not file.is_file() and address is not None:
            raise RunError(f"'{address}' holds no run; expected {PLAN_FILE} there")
        if not file.is_file():
            raise RunError(f"'{path}' is not a run directory; expected one with {PLAN_FILE}")
        return cls(path, read_json(file, Plan))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working on this run.

        Raises:
            RunError: if another process is.
        """
        with locked(self.path, f"another process is working on run '{self.path}'"), self.files.kept():
            yield

    @property
    def records(self) -> pd.DataFrame:
        """All measurements taken so far, one row each, in the plan's order."""
        return to_frame(self.iter_records())

    @property
    def transfers(self) -> TransferFiles:
        """The measurements on images made on other cells."""
        return TransferFiles(self)

    @property
    def complete(self) -> bool:
        """Whether every possible measurement of the plan is taken and none has failed."""
        records = list(self.iter_records())
        return len(records) == self.plan.measures and all(map(self.is_settled, records))

    def is_settled(self, record: Record) -> bool:
        """Whether a measurement is taken, or impossible because the model has no gradients."""
        without_gradients = self.plan.lacks_gradients(record.model)
        return record.status == OK or (without_gradients and record.status.code is StatusCode.not_measured)

    def iter_records(self) -> Iterator[Record]:
        """The records of the measurements taken so far, in the plan's order."""
        for cell in self.plan.cells():
            for attack, eps in self.measures(cell):
                record = self.record(cell, attack, eps)
                if record is not None:
                    yield record

    def measures(self, cell: Cell) -> Iterator[tuple[str, float]]:
        """Attack and eps of every measurement of a cell, the clean one first."""
        yield CLEAN, 0.0
        for attack in self.plan.attacks_of(cell):
            for eps in self.plan.attacked_eps:
                yield attack, eps
        for eps in self.plan.attacked_eps if self.plan.worst_case else ():
            yield WORST_CASE, eps
        for eps in self.plan.attacked_eps if cell.defense in self.plan.certified else ():
            yield CERTIFIED, eps

    def record(self, cell: Cell, attack: str, eps: float) -> Record | None:
        """The record of one measurement; None if it is not taken yet.

        Raises:
            RunError: if it is damaged, belongs to another measurement or run, or contradicts its results.
        """
        known = self._checked(cell, attack, eps)
        return None if known is None else known[0]

    def save_measure(self, cell: Cell, record: Record, outcomes: Measurement) -> Record:
        """Write a measurement's results per image, then its record, which marks it as taken.

        Returns:
            The record with the digests of its plan, weights and results.
        """
        trained = self.trained(cell)
        known = {
            "plan_digest": self.plan.digest,
            "weights_digest": "" if trained is None else trained.weights_digest,
            "results_digest": "",
            "adversarial_digest": "",
        }
        if outcomes.status == OK:
            file = self._measure(cell, record.attack, record.eps, "parquet")
            known["results_digest"] = self.files.write_results(file, outcomes)
        if outcomes.status == OK and outcomes.adversarial is not None:
            images = self._measure(cell, record.attack, record.eps, "safetensors")
            known["adversarial_digest"] = write_adversarial(images, outcomes.adversarial)
        return self.save_record(cell, record.model_copy(update=known))

    def save_record(self, cell: Cell, record: Record) -> Record:
        """Write a record alone, to add facts to a measurement whose results are already written."""
        sealed = record.sealed
        self.files.write(self._measure(cell, record.attack, record.eps, "json"), sealed)
        return sealed

    def outcomes(self, cell: Cell, attack: str, eps: float) -> pd.DataFrame:
        """Results per evaluated image, in the data set's order: ``top1`` and ``top5``, correct or not.

        An attack that stops on success has only the column of its criterion. ``predicted`` is the class with
        the largest logit; worst cases, certificates, transfers and runs of earlier versions lack it.

        Raises:
            RunError: if the measurement is not taken, has failed, or is damaged.
        """
        known = self._checked(cell, attack, eps)
        if known is None or known[1] is None:
            raise RunError(
                f"run '{self.path}' has no results of {cell.label} under {attack} at eps {eps_text(eps)};"
                " run its command again to measure it"
            )
        return known[1]

    def adversarial(self, cell: Cell, attack: str, eps: float) -> AdversarialImages | None:
        """The adversarial images that are kept of a measure; None if the run keeps none of it.

        Raises:
            RunError: if the measure is damaged.
        """
        record = self.record(cell, attack, eps)
        if record is None or not record.adversarial_digest:
            return None
        file = self._measure(cell, attack, eps, "safetensors")
        return read_adversarial(file, record.adversarial_digest, self.plan.eval_images)

    def require_of_run(self, record: Record, file: Path) -> None:
        """Check that a record belongs to this run, whose cells it names.

        Raises:
            RunError: if it belongs to another plan, data set or training, or was changed by hand.
        """
        plan = self.plan
        if record.digest and record.digest != record.content_digest:
            raise DamagedError(
                f"'{file}' was changed by hand or is damaged (its digest does not match its content)"
            )
        wrong = [name for name in _OF_PLAN if getattr(record, name) != getattr(plan, name)]
        wrong += ["classes"] if record.classes != plan.outputs_of(record.model) else []
        wrong += ["n"] if record.n != plan.eval_images else []
        wrong += ["plan"] if record.plan_digest not in ("", plan.digest) else []
        if wrong:
            raise DamagedError(f"'{file}' belongs to another run ({', '.join(wrong)})")
        cell = Cell(record.model, record.defense, record.seed)
        self.require_of_training(cell, record.weights_digest, file)

    def drop_cell(self, cell: Cell) -> None:
        """Delete a cell's weights, training and measurements, so that the run repeats them."""
        directory = self.cell_directory(cell)
        for file in (directory / "training.json", self.weights_file(cell)):
            self.files.forget(file)
        for attack, eps in self.measures(cell):
            self.drop_measure(cell, attack, eps)

    def drop_measure(self, cell: Cell, attack: str, eps: float) -> None:
        """Delete a measurement, so that the run repeats it."""
        for suffix in ("json", "parquet", "safetensors"):
            self.files.forget(self._measure(cell, attack, eps, suffix))

    def has_measures(self, cell: Cell) -> bool:
        """Whether a cell has any measurement file, damaged or not."""
        return any(self._measure(cell, attack, eps, "json").exists() for attack, eps in self.measures(cell))

    def _checked(self, cell: Cell, attack: str, eps: float) -> tuple[Record, pd.DataFrame | None] | None:
        """A measurement's record and its results (None if it failed), checked against each other."""
        file = self._measure(cell, attack, eps, "json")
        if not file.exists():
            return None
        record = self.files.read(file, Record)
        if (record.model, record.defense, record.seed) != (cell.model, cell.defense, cell.seed):
            raise DamagedError(f"'{file}' belongs to another cell")
        if (record.attack, record.eps) != (attack, eps):
            raise DamagedError(f"'{file}' belongs to another measurement")
        self.require_of_run(record, file)
        if record.status != OK:
            return record, None
        if record.adversarial_digest:
            require_digest(file.with_suffix(".safetensors"), record.adversarial_digest)
        return record, self.files.read_results(file.with_suffix(".parquet"), record)

    def _measure(self, cell: Cell, attack: str, eps: float, suffix: str) -> Path:
        folder = self.cell_directory(cell) / "measures"
        earlier = folder / f"{slug(attack)}@{eps!r}.{suffix}"
        return earlier if earlier.exists() else folder / f"{slug(attack)}@{eps_slug(eps)}.{suffix}"


def _require_same(path: Path, plan: Plan) -> None:
    there = RunDirectory.load(path).plan
    if there != plan:
        raise RunError(
            f"run directory '{path}' holds a run with another plan ({'; '.join(plan.differences(there))});"
            " choose another --out, or give the options of that run"
        )
