"""What ``evaluate`` returns: records, their table, and the results per image."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from robustbench_tin.atomic import replacing, write_text
from robustbench_tin.benchmarks.reporting.html import table_html
from robustbench_tin.benchmarks.reporting.results_table import tables
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.benchmarks.run import records_csv, records_json, tables_markdown
from robustbench_tin.benchmarks.runs.records import Record, columns, to_frame
from robustbench_tin.benchmarks.trust.judge import Measured
from robustbench_tin.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

FILES = ("results.md", "results.csv", "results.json", "images.parquet")
"""What :meth:`Evaluation.save` writes."""
_NARROWEST, _NO_TERMINAL = 60, 100


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation:
    """The measurements of one model. A notebook shows its table, and so does ``print``.

    Attributes:
        measures: one a measurement, the clean one first, with the results per image.
        labels: true labels of the images, int64 ``(N,)``.
        notes: lines on the data set, shown below the table.
    """

    measures: Sequence[Measured]
    labels: npt.NDArray[np.int64]
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row a measurement; its columns are the fields of a run's records."""
        return to_frame(measure.record for measure in self.measures)

    @property
    def images(self) -> pd.DataFrame:
        """One row an image and measurement: ``attack``, ``eps``, ``image``, ``label``, ``top1``, ``top5``.

        ``top1`` says if the true label has the largest logit, ``top5`` if it is among the five largest; None
        if that was not measured.
        """
        import pandas as pd

        parts = [self._images_of(measure) for measure in self.measures]
        return pd.concat(parts, ignore_index=True)

    def table(self, *, intervals: bool = False) -> Table:
        """The table that a run of these records has.

        Args:
            intervals: show the 95 % interval of each figure.
        """
        (shown, *_) = tables(self.records, intervals=intervals)
        return replace(shown, notes=(*shown.notes, *self.notes))

    def save(self, directory: str | Path) -> Path:
        """Write the table and the records, as ``results.md``, ``.csv`` and ``.json``, and ``images.parquet``.

        Args:
            directory: new, empty, or one that an evaluation was saved to before, whose files are replaced.

        Raises:
            RunError: if the directory holds something else, or cannot be written.
        """
        path = Path(directory).expanduser()
        _require_own(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_text(path / "results.md", tables_markdown([self.table()]))
            write_text(path / "results.csv", records_csv(self.records))
            write_text(path / "results.json", records_json(self.records))
            with replacing(path / "images.parquet") as temporary:
                self.images.to_parquet(temporary, index=False)
        except OSError as error:
            raise RunError(
                f"directory '{path}' cannot be written: {error.strerror or error}; choose another"
            ) from error
        return path

    def __repr__(self) -> str:
        """The table as a terminal shows it."""
        from rich.console import Console

        from robustbench_tin.benchmarks.reporting.terminal import TerminalTable

        width = max(shutil.get_terminal_size((_NO_TERMINAL, 24)).columns, _NARROWEST)
        text = io.StringIO()
        Console(file=text, width=width, color_system=None, markup=False, emoji=False, highlight=False).print(
            TerminalTable(self.table())
        )
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def _repr_html_(self) -> str:
        return table_html(self.table())

    def __getitem__(self, key: object) -> NoReturn:
        raise TypeError(f"an Evaluation is no DataFrame; use .records[{key!r}]")

    def __getattr__(self, name: str) -> Any:
        # Earlier versions returned the records themselves.
        more = f"; use .records.{name}" if name in columns(Record) or name in _OF_FRAMES else ""
        raise AttributeError(f"an Evaluation has no attribute '{name}'{more}")

    def _images_of(self, measure: Measured) -> pd.DataFrame:
        import pandas as pd

        count = len(self.labels)
        hits = {"top1": measure.top1, "top5": measure.top5}
        return pd.DataFrame(
            {
                "attack": measure.record.attack,
                "eps": measure.record.eps,
                "image": np.arange(count),
                "label": self.labels,
                **{
                    name: pd.array([None] * count if hit is None else hit.tolist(), dtype="boolean")
                    for name, hit in hits.items()
                },
            }
        )


_OF_FRAMES = ("iloc", "loc", "drop", "set_index", "columns", "shape", "equals", "to_dict", "itertuples")


def _require_own(path: Path) -> None:
    """Refuse a place that holds something that no evaluation wrote."""
    try:
        others = sorted({entry.name for entry in path.iterdir()} - set(FILES)) if path.exists() else []
    except OSError as error:
        raise RunError(f"directory '{path}' cannot be read: {error.strerror}; choose another") from error
    if others:
        raise RunError(
            f"directory '{path}' holds {others[0]}, which is no file of an evaluation; choose another"
            " directory"
        )
