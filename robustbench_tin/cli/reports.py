"""The commands that present runs: ``plot`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_tin.benchmarks.planning.cell_names import CELL_HELP
from robustbench_tin.cli.panels import COMPARE
from robustbench_tin.cli.process import Command, say

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, finished or not.")]
Cells = Annotated[str, typer.Option("--cell", metavar="PATTERN", help=f"Only these cells: {CELL_HELP}")]


def add_commands(app: typer.Typer) -> None:
    """Register these commands."""
    app.command(
        cls=Command,
        rich_help_panel=COMPARE,
        epilog="Examples:\n\n"
        "robust-tin plot runs/demo-1a2b3c4d --kind eps --out eps.pdf\n\n"
        "robust-tin plot runs/a runs/b --kind pareto --cell '*/fgsm-at/*' --out pareto.svg",
    )(plot)
    app.command(
        cls=Command,
        rich_help_panel=COMPARE,
        epilog="Examples:\n\n"
        "robust-tin report runs/demo-1a2b3c4d\n\n"
        "robust-tin report runs/a runs/b --out comparison.html",
    )(report)


def plot(
    runs: Runs,
    kind: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="Kind of chart: curves (training), eps (accuracy against eps), pareto (clean against robust"
            " accuracy), classes (accuracy per class), transfer (heat map) or saliency (attribution inside"
            " the box).",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Picture to write; the name ends in .svg, .png or .pdf.")
    ],
    cell: Cells = "*",
) -> None:
    """Draw charts for a paper: curves, accuracy against eps, Pareto front, classes, transfer, saliency."""
    from robustbench_tin.benchmarks.charts.plot import plot as draw

    say(str(draw(runs, kind=kind, out=out, cell=cell)))


def report(
    runs: Runs,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="HTML page to write.",
            show_default="report.html in the first run's directory",
        ),
    ] = None,
    cell: Cells = "*",
) -> None:
    """Write runs as one HTML page: leaderboard, trust, charts, classes, gallery, cost, plan and command."""
    from robustbench_tin.benchmarks.report.report import report as write

    say(str(write(runs, out=out, cell=cell)))
