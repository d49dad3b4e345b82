"""The tables under their old name, for one version; they are in ``robustbench_tin.benchmarks.reporting``."""

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
    """A table that shows itself on a terminal, too."""

    def rich(self) -> TerminalTable:
        """For the terminal; every text is shown as it is, whatever markup or control characters it holds."""
        return TerminalTable(self)
