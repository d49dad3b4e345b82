"""The runs and cells in a picture or a report, each under a unique name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from robustbench_tin.benchmarks.planning.cell_names import select_cells
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.reporting.table_rows import TableRow, table_rows
from robustbench_tin.benchmarks.reporting.transfer_table import worst_sources
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.image_labels import ImageLabels, read_labels
from robustbench_tin.errors import InvalidSettingError, RunError
from robustbench_tin.specs import short_numbers

if TYPE_CHECKING:
    import pandas as pd


T = TypeVar("T")


@dataclass(frozen=True)
class ShownRun:
    """One run in a picture or a report.

    Attributes:
        name: short and unique; empty if only one run is shown.
        run: the run.
        pattern: pattern of the cells to show.
    """

    name: str
    run: Run
    pattern: str = "*"

    _kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """A value computed once from this run and kept under this key."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    @cached_property
    def records(self) -> pd.DataFrame:
        """The records of the shown cells."""
        return self.run.records_of(self.pattern)

    @cached_property
    def transfers(self) -> pd.DataFrame:
        """The records of the run's transfers, for all its cells."""
        return self.run.transfers.records

    @cached_property
    def rows(self) -> list[TableRow]:
        """One row per backbone and defense, with the records of its seeds."""
        return table_rows(self.records, worst_sources(self.transfers), per_seed=False)

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells, in the plan's order."""
        return select_cells(self.run.plan.cells(), self.pattern, str(self.run.path))

    @cached_property
    def labels(self) -> ImageLabels | None:
        """The labels of the evaluated images; None if an earlier version wrote the run."""
        return read_labels(self.run.path, self.run.plan)

    def cells_of(self, row: TableRow) -> list[Cell]:
        """The cells of a row, one per seed."""
        seeds = {cell.seed for cell in row.seeds}
        return [
            cell
            for cell in self.cells
            if (cell.model, short_numbers(cell.defense)) == (row.model, row.defense) and cell.seed in seeds
        ]

    def label(self, row: TableRow) -> str:
        """The name of a row: ``resnet50 + fgsm-at``, after the run's name if several runs are shown."""
        return self.cell_label(row.model, row.defense)

    def cell_label(self, model: str, defense: str) -> str:
        """The name of a backbone and defense, after the run's name if several runs are shown."""
        return f"{self.qualified(model)} + {short_numbers(defense)}"

    def qualified(self, text: str) -> str:
        """A text after the run's name, if several runs are shown."""
        return f"{self.name}: {text}" if self.name else text


def open_runs(paths: Sequence[str | Path], cell: str = "*") -> list[ShownRun]:
    """Open runs to show together.

    Args:
        paths: the run directories.
        cell: name or pattern of the cells to show.

    Raises:
        RobustTinError: if one is not a run or is given twice, or no run has such a cell.
    """
    places = [Path(path) for path in paths]
    if len({place.resolve() for place in places}) < len(places):
        raise InvalidSettingError("got the same run twice; give each run once")
    runs = [Run.load(place) for place in places]
    names = _names(places) if len(places) > 1 else [""]
    found, missing = [], []
    for name, run in zip(names, runs, strict=True):
        try:
            select_cells(run.plan.cells(), cell, str(run.path))
        except RunError as error:
            missing.append(error)
        else:
            found.append(ShownRun(name, run, cell))
    if not found:
        raise missing[0]
    return found


def _names(places: Sequence[Path]) -> list[str]:
    """The last parts of the paths: as many as needed to make them distinct."""
    parts = [place.resolve().parts for place in places]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [str(place) for place in places]
