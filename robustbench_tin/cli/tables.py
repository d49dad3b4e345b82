"""Printing of a run's tables, and the exit code of a command that measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from robustbench_tin.benchmarks.reporting.table import Table


def require_no_failure(run: Any) -> None:
    """End with an error if a measure failed, so that a script notices.

    Raises:
        RunError: with the number of failed measures.
    """
    from robustbench_tin.benchmarks.codes.status import StatusCode
    from robustbench_tin.errors import RunError

    statuses = [record.status.code for record in run.iter_records()]
    failed = sum(status not in (StatusCode.ok, StatusCode.not_measured) for status in statuses)
    if failed:
        raise RunError(
            f"{failed} of {len(statuses)} measurements failed; the tables give the reasons. Repeat the"
            " command to try them again"
        )


def print_tables(run: Any, tables: Sequence[Table], console: Console) -> None:
    """Print the tables of a run.

    Raises:
        RunError: if it has no measurements yet.
    """
    from robustbench_tin.errors import RunError

    if not tables:
        raise RunError(f"run '{run.path}' has no measurements yet; repeat its bench command to continue it")
    render_tables(tables, console)


def render_tables(tables: Sequence[Table], console: Console) -> None:
    """Print tables, separated by an empty line."""
    from robustbench_tin.benchmarks.reporting.terminal import TerminalTable

    for index, table in enumerate(tables):
        if index:
            console.print()
        console.print(TerminalTable(table))
