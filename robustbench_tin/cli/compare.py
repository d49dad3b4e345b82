"""The command ``compare``: differences between cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_tin.benchmarks.planning.cell_names import CELL_HELP
from robustbench_tin.cli.panels import COMPARE
from robustbench_tin.cli.process import Command
from robustbench_tin.streams import make_console

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.comparison.compare import Comparison

_SHOWN = "Output"


def add_commands(app: typer.Typer) -> None:
    """Register the command."""
    app.command(
        cls=Command,
        rich_help_panel=COMPARE,
        epilog="Examples:\n\n"
        "robust-tin compare runs/before runs/after\n\n"
        "robust-tin compare runs/demo:'*/none' runs/demo:'*/fgsm-at' --latex\n\n"
        "robust-tin compare runs/demo",
    )(compare)


def compare(
    first: Annotated[
        str, typer.Argument(metavar="A", help="A run directory, or RUN:PATTERN for some of its cells.")
    ],
    second: Annotated[
        str | None,
        typer.Argument(
            metavar="[B]",
            help="Another run, or RUN:PATTERN. Without it, the defenses of A are compared with each other.",
        ),
    ] = None,
    cell: Annotated[
        str, typer.Option(metavar="CELL", help=f"Cells of each side that has no pattern: {CELL_HELP}")
    ] = "*",
    per_seed: Annotated[
        bool, typer.Option("--per-seed", help="Compare each seed separately, with McNemar's test.")
    ] = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="Print LaTeX for the package booktabs.", rich_help_panel=_SHOWN)
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown.", rich_help_panel=_SHOWN)
    ] = False,
    html: Annotated[bool, typer.Option("--html", help="Print HTML.", rich_help_panel=_SHOWN)] = False,
    csv: Annotated[
        bool,
        typer.Option(
            "--csv", help="Print CSV: one row per difference, unrounded numbers.", rich_help_panel=_SHOWN
        ),
    ] = False,
) -> None:
    """Compare the cells of one run or of two: differences with intervals and tests.

    A cell of A is compared with the cell of B that has the same backbone and
    defense. If B has no such cell, it is compared with the cells of the same
    backbone, or else with those of the same defense.
    """
    from robustbench_tin.benchmarks.comparison.compare import compare as run_compare
    from robustbench_tin.errors import InvalidSettingError

    chosen = [
        name
        for name, wanted in (("latex", latex), ("markdown", markdown), ("html", html), ("csv", csv))
        if wanted
    ]
    if len(chosen) > 1:
        raise InvalidSettingError(f"got --{' and --'.join(chosen)}; give only one of them")
    _show(run_compare(first, second, cell=cell, by_seed=per_seed), *chosen)


def _show(found: Comparison, kind: str = "table") -> None:
    if kind == "table":
        from robustbench_tin.benchmarks.reporting.terminal import TerminalTable

        make_console().print(TerminalTable(found.table))
    elif kind == "latex":
        from robustbench_tin.benchmarks.reporting.latex import table_latex

        print(table_latex(found.table))
    elif kind == "markdown":
        print(found.table.markdown())
    elif kind == "html":
        from robustbench_tin.benchmarks.reporting.html import table_html

        print(table_html(found.table))
    else:
        from robustbench_tin.benchmarks.run import records_csv

        print(records_csv(found.frame), end="")
