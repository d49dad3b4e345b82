"""The tables under their old name, for one version; now in ``robustbench_tin.benchmarks.reporting``."""

from __future__ import annotations

import warnings

from robustbench_tin.benchmarks.reporting import table
from robustbench_tin.benchmarks.reporting.terminal import TerminalTable

__all__ = ["Table"]

warnings.warn(
    "robustbench_tin.benchmarks.tables is now robustbench_tin.benchmarks.reporting.table",
    DeprecationWarning,
    stacklevel=2,
)


class Table(table.Table):
    """A table that also shows itself on a terminal."""

    def rich(self) -> TerminalTable:
        """The table for the terminal; texts are shown literally, even with markup or control characters."""
        return TerminalTable(self)
