"""A run in the form that users see: its records and the tables made from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.comparison.best_in_column import standings_in
from robustbench_tin.benchmarks.planning.cell_names import select_cells
from robustbench_tin.benchmarks.planning.config import TableConfig
from robustbench_tin.benchmarks.reporting.html import tables_html
from robustbench_tin.benchmarks.reporting.results_table import tables
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.benchmarks.reporting.transfer_table import transfer_tables, worst_sources
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.benchmarks.runs.transfer_records import TransferFiles
from robustbench_tin.text import spreadsheet_cell

if TYPE_CHECKING:
    import pandas as pd


class Transfers(TransferFiles):
    """The transfers of a run, and their tables."""

    @property
    def tables(self) -> list[Table]:
        """Source × target, one table for each attack and eps."""
        return transfer_tables(self.records, self._run.records)


class Run(RunDirectory):
    """A run directory with its tables. A notebook shows them.

    ``results.md``, ``results.csv``, ``results.json`` and ``transfer.md`` are rendered from the records.
    """

    @property
    def tables(self) -> list[Table]:
        """The run's tables in the form of ``results.md``: all attacks in one, with the worst transfer."""
        return self.tables_of()

    def tables_of(
        self,
        shown: TableConfig | None = None,
        *,
        sort: str | None = None,
        cell: str = "*",
        with_best: bool = False,
    ) -> list[Table]:
        """The run's tables, with options.

        Args:
            shown: layout; None: the defaults.
            sort: a column, see :func:`robustbench_tin.benchmarks.reporting.results_table.tables`.
            cell: name or pattern of the cells to show.
            with_best: mark the best figure of each column, and those that do not differ significantly.

        Raises:
            RobustTinError: if there is no such column or cell.
        """
        shown = shown or TableConfig()
        return tables(
            self.records_of(cell),
            eps=self.plan.eps,
            worst=worst_sources(self.transfers.records),
            by_attack=shown.by == "attack",
            per_seed=shown.per_seed,
            intervals=shown.intervals,
            sort=sort,
            standings=standings_in(self) if with_best else None,
        )

    def records_of(self, cell: str) -> pd.DataFrame:
        """The records of the cells that match a name or pattern.

        Raises:
            RunError: if there is no such cell.
        """
        records = self.records
        if cell == "*":
            return records
        chosen = {
            (one.model, one.defense, one.seed)
            for one in select_cells(self.plan.cells(), cell, str(self.path))
        }
        keys = zip(records["model"], records["defense"], records["seed"], strict=True)
        return records[[key in chosen for key in keys]]

    def __repr__(self) -> str:
        return f"Run('{self.path}')"

    def _repr_html_(self) -> str:
        return tables_html(self.tables)

    @property
    def transfers(self) -> Transfers:
        """The measurements on images made on other cells."""
        return Transfers(self)

    def write_results(self) -> None:
        """Render the records: tables as Markdown, records as CSV and JSON."""
        frame = self.records
        write_text(self.path / "results.md", tables_markdown(self.tables))
        write_text(self.path / "results.csv", records_csv(frame))
        write_text(self.path / "results.json", records_json(frame))

    def write_transfer_tables(self) -> None:
        """Render the tables of the transfers as Markdown."""
        write_text(self.path / "transfer.md", tables_markdown(self.transfers.tables))


def tables_markdown(shown: Sequence[Table]) -> str:
    """Tables as a Markdown page."""
    return "\n\n".join(table.markdown() for table in shown) + "\n"


def records_csv(frame: pd.DataFrame) -> str:
    """Records as CSV, in which no spreadsheet mistakes a text for a formula."""
    return str(frame.map(_csv_cell).to_csv(index=False))


def _csv_cell(value: object) -> object:
    if isinstance(value, list):  # codes, as in JSON
        value = json.dumps(value)
    return spreadsheet_cell(value) if isinstance(value, str) else value


def records_json(frame: pd.DataFrame) -> str:
    """Records as JSON text: a list of objects; a missing number is null."""
    rows = [
        {key: None if value != value else value for key, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]
    return json.dumps(rows, indent=2, default=lambda value: value.item()) + "\n"
