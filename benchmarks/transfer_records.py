"""What is known of each transfer: images made on one cell of a run, measured on another.

::

    RUN/transfer/ATTACK/SOURCE/TARGET@EPS.parquet   outcomes, an image a row
    RUN/transfer/ATTACK/SOURCE/TARGET@EPS.json      the record; there once the measure is taken
    RUN/transfer.md                                 the tables
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.plan import Cell, slug
from robustbench_tin.benchmarks.records import OK, Record
from robustbench_tin.benchmarks.run import Run, read_json, write_outcomes

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.measure import Outcomes
    from robustbench_tin.benchmarks.tables import Table


class TransferRecord(Record):
    """One measure of one cell, the target, on images made on another, the source.

    Passes and seconds are what this measure alone would take: those of making the images, which all
    targets share, count in each.

    Attributes:
        source_model: the backbone that the images were made on.
        source_defense: its defense's canonical spec.
        source_seed: of its cell.
    """

    source_model: str
    source_defense: str
    source_seed: int

    @property
    def source(self) -> Cell:
        """The cell that the images were made on."""
        return Cell(self.source_model, self.source_defense, self.source_seed)

    @property
    def target(self) -> Cell:
        """The cell that was measured."""
        return Cell(self.model, self.defense, self.seed)


class Transfers:
    """The transfers of a run on disk.

    Args:
        run: whose cells they are between.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._path = run.path / "transfer"

    @property
    def records(self) -> pd.DataFrame:
        """All measures taken so far, one row each: by attack, then source, target and eps."""
        import pandas as pd

        rows = [record.model_dump() for record in self]
        return pd.DataFrame(rows, columns=list(TransferRecord.model_fields))

    @property
    def tables(self) -> list[Table]:
        """Source × target, one table an attack and eps."""
        from robustbench_tin.benchmarks.transfer_tables import transfer_tables

        return transfer_tables(self.records, self._run.records)

    def __iter__(self) -> Iterator[TransferRecord]:
        order = {cell: index for index, cell in enumerate(self._run.plan.cells())}
        found = [read_json(file, TransferRecord) for file in sorted(self._path.glob("*/*/*.json"))]
        yield from sorted(
            found,
            key=lambda record: (record.attack, order[record.source], order[record.target], record.eps),
        )

    def record(self, attack: str, source: Cell, target: Cell, eps: float) -> TransferRecord | None:
        """One measure's record, or None where it is not taken yet."""
        file = self._file(attack, source, target, eps, "json")
        return read_json(file, TransferRecord) if file.exists() else None

    def save(self, record: TransferRecord, outcomes: Outcomes) -> None:
        """Write a measure's outcomes, then its record, which marks it as taken."""
        key = record.attack, record.source, record.target, record.eps
        if outcomes.status == OK:
            write_outcomes(self._file(*key, "parquet"), outcomes)
        write_text(self._file(*key, "json"), record.model_dump_json(indent=2) + "\n")

    def top1(self, record: TransferRecord) -> npt.NDArray[np.bool_]:
        """Per evaluated image, in the data set's order: was its label in the top 1."""
        import pandas as pd

        file = self._file(record.attack, record.source, record.target, record.eps, "parquet")
        hits: npt.NDArray[np.bool_] = pd.read_parquet(file, columns=["top1"])["top1"].to_numpy()
        return hits

    def write_tables(self) -> None:
        """Render the tables as Markdown."""
        text = "\n\n".join(table.markdown() for table in self.tables)
        write_text(self._run.path / "transfer.md", text + "\n")

    def _file(self, attack: str, source: Cell, target: Cell, eps: float, suffix: str) -> Path:
        return self._path / slug(attack) / source.slug / f"{target.slug}@{eps!r}.{suffix}"
