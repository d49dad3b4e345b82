"""The record of each transfer: images made on one cell of a run, measured on another cell.

::

    RUN/transfer/ATTACK/SOURCE/TARGET@EPS.parquet   results, one row per image
    RUN/transfer/ATTACK/SOURCE/TARGET@EPS.json      the record; exists once the measurement is taken
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.planning.plan import Cell, eps_slug, slug
from robustbench_tin.benchmarks.runs.files import DamagedError
from robustbench_tin.benchmarks.runs.records import Record, columns, shown

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.measurement.results import Measurement
    from robustbench_tin.benchmarks.runs.run_directory import RunDirectory


class TransferRecord(Record):
    """One measurement of one cell, the target, on images made on another cell, the source.

    Passes and seconds are those that this measurement alone would take: making the images, which all
    targets share, counts in each.

    Attributes:
        source_model: the backbone that the images were made on.
        source_defense: canonical spec of its defense.
        source_seed: seed of its cell.
        source_weights_digest: digest of its weights file.
    """

    source_model: str
    source_defense: str
    source_seed: int
    source_weights_digest: str = ""

    @property
    def source(self) -> Cell:
        """The cell that the images were made on."""
        return Cell(self.source_model, self.source_defense, self.source_seed)

    @property
    def target(self) -> Cell:
        """The cell that was measured."""
        return Cell(self.model, self.defense, self.seed)


class TransferFiles:
    """The transfers of a run on disk.

    Args:
        run: the run of the cells.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._path = run.path / "transfer"

    @property
    def records(self) -> pd.DataFrame:
        """All transfers measured so far, one row each, ordered by attack, source, target and eps."""
        from robustbench_tin.benchmarks.runs.record_frame import RecordFrame

        return RecordFrame([shown(record) for record in self], columns=columns(TransferRecord))

    def __iter__(self) -> Iterator[TransferRecord]:
        order = {cell: index for index, cell in enumerate(self._run.plan.cells())}
        found = [self.read(file) for file in self.files()]
        yield from sorted(
            found,
            key=lambda record: (record.attack, order[record.source], order[record.target], record.eps),
        )

    def files(self) -> list[Path]:
        """The files of all records, damaged or not."""
        return sorted(self._path.glob("*/*/*.json"))

    def read(self, file: Path) -> TransferRecord:
        """The record in a file.

        Raises:
            RunError: if it is damaged, belongs to other cells or another run, or contradicts its results.
        """
        record = self._run.files.read(file, TransferRecord)
        if file != self._file(record.attack, record.source, record.target, record.eps, "json"):
            raise DamagedError(f"'{file}' belongs to another transfer")
        if not {record.source, record.target} <= set(self._run.plan.cells()):
            raise DamagedError(f"'{file}' belongs to cells that the run does not have")
        self._run.require_of_run(record, file)
        self._run.require_of_training(record.source, record.source_weights_digest, file)
        if record.status == OK:
            self._run.files.read_results(file.with_suffix(".parquet"), record)
        return record

    def drop(self, file: Path) -> None:
        """Delete a measurement, so that it is repeated."""
        for suffix in (".json", ".parquet"):
            self._run.files.forget(file.with_suffix(suffix))

    def record(self, attack: str, source: Cell, target: Cell, eps: float) -> TransferRecord | None:
        """The record of one measurement; None if it is not taken yet."""
        file = self._file(attack, source, target, eps, "json")
        return self.read(file) if file.exists() else None

    def save(self, record: TransferRecord, outcomes: Measurement) -> None:
        """Write a measurement's results per image, then its record, which marks it as taken."""
        key = record.attack, record.source, record.target, record.eps
        known = {
            "plan_digest": self._run.plan.digest,
            "weights_digest": self._weights_digest(record.target),
            "source_weights_digest": self._weights_digest(record.source),
            "results_digest": "",
        }
        if outcomes.status == OK:
            known["results_digest"] = self._run.files.write_results(self._file(*key, "parquet"), outcomes)
        self._run.files.write(self._file(*key, "json"), record.model_copy(update=known).sealed)

    def top1(self, record: TransferRecord) -> npt.NDArray[np.bool_]:
        """Per evaluated image, in the data set's order: whether its label is in the top 1."""
        file = self._file(record.attack, record.source, record.target, record.eps, "parquet")
        hits: npt.NDArray[np.bool_] = self._run.files.read_results(file, record)["top1"].to_numpy()
        return hits

    def _weights_digest(self, cell: Cell) -> str:
        trained = self._run.trained(cell)
        return "" if trained is None else trained.weights_digest

    def _file(self, attack: str, source: Cell, target: Cell, eps: float, suffix: str) -> Path:
        folder = self._path / slug(attack) / source.slug
        earlier = folder / f"{target.slug}@{eps!r}.{suffix}"
        return earlier if earlier.exists() else folder / f"{target.slug}@{eps_slug(eps)}.{suffix}"
