"""The run directory: a plan, its cells, their outcomes and records, each file whole or absent.

::

    RUN/plan.json
    RUN/cells/CELL/weights.safetensors
    RUN/cells/CELL/checkpoint.safetensors     there while the cell is trained, or where that failed
    RUN/cells/CELL/curves.csv                 training curves, a row an epoch
    RUN/cells/CELL/training.json              there once the cell is trained
    RUN/cells/CELL/search.json                precision and layout that searches were timed to be fastest in
    RUN/cells/CELL/measures/MEASURE.parquet   outcomes, an image a row
    RUN/cells/CELL/measures/MEASURE.json      the record; there once the measure is taken
    RUN/tensorboard/CELL/...                  the same as events, where asked for
    RUN/transfer/...                          likewise, of images made on other cells (transfer_records.py)
    RUN/results.md, results.csv, results.json  rendered from the records when the run ends
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from robustbench_tin.atomic import replacing, write_text
from robustbench_tin.benchmarks.plan import Cell, Plan, slug
from robustbench_tin.benchmarks.records import CERTIFIED, CLEAN, OK, WORST_CASE, Record, to_frame
from robustbench_tin.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.measure import Outcomes
    from robustbench_tin.benchmarks.tables import Table
    from robustbench_tin.benchmarks.transfer_records import Transfers

PLAN_FILE = "plan.json"

T = TypeVar("T", bound=BaseModel)


class Trained(BaseModel):
    """What is known of a trained cell; a cell that could not be trained says why in ``status``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: str = OK
    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    lr: float
    loss: float | None = None
    precision: str
    network_size: int
    notes: tuple[str, ...] = ()


class Run:
    """A run on disk.

    Attributes:
        path: its directory.
        plan: what it does.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan

    @classmethod
    def create(cls, path: Path, plan: Plan) -> Run:
        """Start a run in a directory, or go on with the run of the same plan that lies there.

        Raises:
            RunError: where another plan's run or something else lies there, or it cannot be written.
        """
        if path.exists() and not path.is_dir():
            raise RunError(f"run directory '{path}' is a file; choose another --out")
        if (path / PLAN_FILE).exists():
            there = cls.load(path)
            if there.plan != plan:
                differences = "; ".join(plan.differences(there.plan))
                raise RunError(
                    f"run directory '{path}' holds a run of another plan ({differences});"
                    " choose another --out or give the same command again"
                )
        elif _holds_something(path):
            raise RunError(f"run directory '{path}' is not empty and holds no run; choose another --out")
        else:
            write_text(path / PLAN_FILE, plan.model_dump_json(indent=2) + "\n")
        return cls(path, plan)

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Open a run to read it.

        Raises:
            RunError: where no run lies there, or its plan cannot be read.
        """
        path = Path(path)
        file = path / PLAN_FILE
        if not file.is_file():
            raise RunError(f"'{path}' is no run directory; expected one that holds {PLAN_FILE}")
        return cls(path, read_json(file, Plan))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working on this run.

        Raises:
            RunError: where one is.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"another process is working on run '{self.path}'; wait for it or choose another --out"
            ) from None
        except OSError as error:
            raise RunError(f"run directory '{self.path}' cannot be written: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    @property
    def records(self) -> pd.DataFrame:
        """All measures taken so far, one row each, in the plan's order."""
        return to_frame(self.iter_records())

    @property
    def tables(self) -> list[Table]:
        """The run's tables: one an attack, with the worst transfer where there is one."""
        from robustbench_tin.benchmarks.tables import tables
        from robustbench_tin.benchmarks.transfer_tables import worst_sources

        return tables(self.records, eps=self.plan.eps, worst=worst_sources(self.transfers.records))

    @property
    def transfers(self) -> Transfers:
        """What was measured on images made on other cells."""
        from robustbench_tin.benchmarks.transfer_records import Transfers

        return Transfers(self)

    @property
    def complete(self) -> bool:
        """Whether every measure of the plan is taken, and none has failed."""
        records = list(self.iter_records())
        return len(records) == self.plan.measures and all(record.status == OK for record in records)

    def iter_records(self) -> Iterator[Record]:
        """The measures taken so far, in the plan's order."""
        for cell in self.plan.cells():
            for attack, eps in self.measures(cell):
                record = self.record(cell, attack, eps)
                if record is not None:
                    yield record

    def measures(self, cell: Cell) -> Iterator[tuple[str, float]]:
        """Attack and eps of every measure of a cell, the clean one first."""
        yield CLEAN, 0.0
        for attack in self.plan.attacks:
            for eps in self.plan.attacked_eps:
                yield attack, eps
        for eps in self.plan.attacked_eps if self.plan.worst_case else ():
            yield WORST_CASE, eps
        for eps in self.plan.attacked_eps if cell.defense in self.plan.certified else ():
            yield CERTIFIED, eps

    def weights_file(self, cell: Cell) -> Path:
        """Where a cell's weights are."""
        return self._cell(cell) / "weights.safetensors"

    def checkpoint_file(self, cell: Cell) -> Path:
        """Where a cell's training is written down while it goes on."""
        return self._cell(cell) / "checkpoint.safetensors"

    def curves_file(self, cell: Cell) -> Path:
        """Where a cell's training curves are."""
        return self._cell(cell) / "curves.csv"

    def events_directory(self, cell: Cell) -> Path:
        """Where they are as TensorBoard events."""
        return self.path / "tensorboard" / cell.slug

    def trained(self, cell: Cell) -> Trained | None:
        """What is known of a trained cell; None where it is not trained yet."""
        file = self._cell(cell) / "training.json"
        return read_json(file, Trained) if file.exists() else None

    def save_trained(self, cell: Cell, trained: Trained) -> None:
        """Mark a cell as trained; its weights are written before."""
        write_text(self._cell(cell) / "training.json", trained.model_dump_json(indent=2) + "\n")

    def require_trained(self, cell: Cell) -> None:
        """Check that a cell has weights.

        Raises:
            RunError: saying why it has none.
        """
        trained = self.trained(cell)
        if trained is None or trained.status != OK:
            why = "not trained" if trained is None else trained.status
            raise RunError(f"{cell.label} has no weights ({why}); train it again")

    def search_forms(self, cell: Cell) -> dict[str, list[str]]:
        """The forms that a cell's searches were timed to be fastest with; empty where none was chosen yet.

        Raises:
            RunError: where the file is damaged.
        """
        file = self._cell(cell) / "search.json"
        try:
            return TypeAdapter(dict[str, list[str]]).validate_json(file.read_bytes()) if file.exists() else {}
        except ValidationError:
            raise RunError(f"'{file}' is damaged; remove it to choose again") from None

    def save_search_forms(self, cell: Cell, labels: Mapping[str, Sequence[str]]) -> None:
        """Write down what was chosen by timing, so that going on chooses the same."""
        write_text(self._cell(cell) / "search.json", json.dumps(labels, indent=2) + "\n")

    def record(self, cell: Cell, attack: str, eps: float) -> Record | None:
        """One measure's record, or None where it is not taken yet."""
        file = self._measure(cell, attack, eps, "json")
        return read_json(file, Record) if file.exists() else None

    def save_measure(self, cell: Cell, record: Record, outcomes: Outcomes) -> None:
        """Write a measure's outcomes, then its record, which marks it as taken."""
        if outcomes.status == OK:
            write_outcomes(self._measure(cell, record.attack, record.eps, "parquet"), outcomes)
        self.save_record(cell, record)

    def save_record(self, cell: Cell, record: Record) -> None:
        """Write a record alone, once more is known of a measure whose outcomes are there."""
        file = self._measure(cell, record.attack, record.eps, "json")
        write_text(file, record.model_dump_json(indent=2) + "\n")

    def outcomes(self, cell: Cell, attack: str, eps: float) -> pd.DataFrame:
        """Per evaluated image, in the data set's order: was its label in the top 1, in the top 5.

        An attack until broken has the column of its criterion only.

        Raises:
            RunError: where the measure is not taken, or has failed.
        """
        import pandas as pd

        file = self._measure(cell, attack, eps, "parquet")
        if not file.exists():
            raise RunError(f"run '{self.path}' has no outcomes of {cell.label} under {attack} at eps {eps:g}")
        return pd.read_parquet(file)

    def write_results(self) -> None:
        """Render the records: tables as Markdown, records as CSV and JSON."""
        frame = self.records
        write_text(self.path / "results.md", "\n\n".join(table.markdown() for table in self.tables) + "\n")
        write_text(self.path / "results.csv", frame.to_csv(index=False))
        write_text(self.path / "results.json", records_json(frame))

    def _cell(self, cell: Cell) -> Path:
        return self.path / "cells" / cell.slug

    def _measure(self, cell: Cell, attack: str, eps: float, suffix: str) -> Path:
        return self._cell(cell) / "measures" / f"{slug(attack)}@{eps!r}.{suffix}"


def write_outcomes(file: Path, outcomes: Outcomes) -> None:
    """Write what was right of a measure that was taken, an image a row."""
    import pyarrow
    from pyarrow import parquet

    hits = {"top1": outcomes.top1, "top5": outcomes.top5}
    table = pyarrow.table({name: column for name, column in hits.items() if column is not None})
    with replacing(file) as temporary:
        parquet.write_table(table, temporary)


def records_json(frame: pd.DataFrame) -> str:
    """Records as JSON text: a list of objects, a missing number null."""
    rows = [
        {key: None if value != value else value for key, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]
    return json.dumps(rows, indent=2, default=lambda value: value.item()) + "\n"


def _holds_something(path: Path) -> bool:
    try:
        return path.is_dir() and any(path.iterdir())
    except OSError as error:
        raise RunError(f"run directory '{path}' cannot be read: {error.strerror}") from error


def read_json(file: Path, kind: type[T]) -> T:
    """A file that was written from this kind of model.

    Raises:
        RunError: where it cannot be read or is damaged.
    """
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        raise RunError(f"cannot read '{file}': {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise RunError(
            f"'{file}' is damaged or of another version ({where}: {first['msg']});"
            " remove it to do that part again"
        ) from None
