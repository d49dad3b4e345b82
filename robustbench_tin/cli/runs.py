"""The commands on runs: ``bench``, ``show``, ``runs`` and ``transfer``."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_tin.benchmarks.planning.config import (
    BenchConfig,
    CellConfig,
    DataConfig,
    TableConfig,
    TrainingConfig,
)
from robustbench_tin.cli.options_from_configs import as_option, given_options, with_options
from robustbench_tin.cli.panels import COMPARE, MEASURE
from robustbench_tin.cli.process import Command, complain, say
from robustbench_tin.cli.tables import print_tables, render_tables, require_no_failure
from robustbench_tin.streams import make_console
from robustbench_tin.text import printable

Plugin = Annotated[list[Path] | None, as_option(CellConfig, "plugins")]


class Format(StrEnum):
    """Output format of ``robust-tin show``."""

    table = "table"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


def add_commands(app: typer.Typer) -> None:
    """Register these commands."""
    app.command(
        cls=Command,
        rich_help_panel=MEASURE,
        epilog="If a preset turns a switch on, its --no- form turns it off: --no-worst-case.\n\n"
        "Examples:\n\n"
        "robust-tin bench --models all --eps 0.0,0.01,0.03\n\n"
        "robust-tin bench --data DATA/tiny-imagenet-200 --classes 10 --models mobilenet,resnet50"
        " --defenses none,bbox-crop,fgsm-at\n\n"
        "robust-tin bench --models 'densenet*' --attacks fgsm,pgd:steps=20,restarts=2 --eps 4/255,8/255",
    )(bench)
    app.command(
        cls=Command,
        rich_help_panel=COMPARE,
        epilog="Example: robust-tin show runs/demo-1a2b3c4d --format markdown",
    )(show)
    app.command(
        rich_help_panel=COMPARE, epilog="Examples:\n\nrobust-tin runs\n\nrobust-tin runs runs/demo-1a2b3c4d"
    )(runs)
    app.command(
        cls=Command,
        rich_help_panel=MEASURE,
        epilog="Example: robust-tin transfer runs/demo-1a2b3c4d --attack pgd",
    )(transfer)


@with_options
def bench(context: typer.Context, asked: BenchConfig, shown: TableConfig) -> None:
    """Train backbones, attack them, and print clean and attacked accuracy."""
    from robustbench_tin.benchmarks.bench import bench as run_bench
    from robustbench_tin.progress import ConsoleReporter

    console = make_console()
    given = given_options(context, asked)
    trust = _asked_to_trust(given)
    options = {"jobs": None, **given, **({"trust_plugins": True} if trust else {})}
    run = run_bench(**options, reporter=ConsoleReporter(console))
    if run is not None:
        print_tables(run, run.tables_of(shown), console)
        say(f"Tables and records: {run.path}/results.md, .csv, .json")
        require_no_failure(run)


def _asked_to_trust(given: dict[str, Any]) -> bool:
    """True if the user at a terminal allows the plug-ins of a preset to run."""
    from robustbench_tin.presets import untrusted_plugins

    plugins = untrusted_plugins(given) if sys.stdin.isatty() else []
    return bool(plugins) and typer.confirm(
        f"The preset runs {printable(', '.join(plugins))}, which are programs with all your rights. Run them?"
    )


@with_options
def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    shown: TableConfig,
    cell: Annotated[
        str,
        typer.Option(metavar="CELL", help="Only these cells: MODEL/DEFENSE/SEED, for example '*/fgsm-at/*'."),
    ] = "*",
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column that sorts the rows: its heading, clean, worst (lowest top-1 under attack), top1 or"
            " top5 (mean under attack).",
        ),
    ] = None,
    format: Annotated[
        Format,
        typer.Option(
            help="Output format. csv and json print the records, one row per measurement. latex needs the"
            " package booktabs and sets the best value of each column in bold."
        ),
    ] = Format.table,
) -> None:
    """Print a finished run's tables or records."""
    from robustbench_tin.benchmarks.run import Run, records_csv, records_json

    opened = Run.load(run)
    for note in opened.notes:
        complain(f"note: {note}")
    if format is Format.table:
        print_tables(opened, opened.tables_of(shown, sort=sort, cell=cell), make_console())
    elif format is Format.markdown:
        print("\n\n".join(table.markdown() for table in opened.tables_of(shown, sort=sort, cell=cell)))
    elif format is Format.latex:
        from robustbench_tin.benchmarks.reporting.latex import table_latex

        shown_tables = opened.tables_of(shown, sort=sort, cell=cell, with_best=True)
        print("\n\n".join(map(table_latex, shown_tables)))
    elif format is Format.csv:
        print(records_csv(opened.records_of(cell)), end="")
    else:
        print(records_json(opened.records_of(cell)), end="")


def runs(
    directory: Annotated[
        Path,
        typer.Argument(metavar="[DIR|RUN]", help="Directory to search, at any depth; or a run directory."),
    ] = Path("runs"),
) -> None:
    """List runs: state, time left, best robust accuracy, short plan; or list the cells of one run."""
    from robustbench_tin.benchmarks.runs.run_directory import PLAN_FILE

    if (directory / PLAN_FILE).is_file():
        _show_cells(directory)
        return
    _list_runs(directory)


def _show_cells(path: Path) -> None:
    from datetime import datetime

    from robustbench_tin.benchmarks.reporting.run_progress import cell_table, ending
    from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
    from robustbench_tin.benchmarks.runs.run_state import run_state

    state = run_state(RunDirectory.load(path))
    make_console().print(cell_table(state))
    say(ending(state, datetime.now()))


def _list_runs(directory: Path) -> None:
    from robustbench_tin.benchmarks.reporting.run_list import BEST, run_summaries, run_table

    found = run_summaries(directory)
    if any(not each.damage for each in found):
        make_console().print(run_table(found))
        say(BEST)
    for each in found:
        if each.damage:
            say(f"{each.name} is damaged: {each.damage}")
    if not found:
        say(f"No runs in {directory}.")


@with_options
def transfer(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    part: DataConfig,
    attack: Annotated[
        str, typer.Option(help="Attack with a fixed budget: mi-fgsm, pgd:steps=20.")
    ] = "mi-fgsm",
    eps: Annotated[
        str | None,
        typer.Option(help="Budgets in units of the pixel range [0, 1].", show_default="the run's"),
    ] = None,
    device: Annotated[
        str | None, as_option(TrainingConfig, "device", show_default="the run's", rich_help_panel=None)
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Make adversarial images on each cell of a run and measure every other cell on them.

    The data options default to those of the run's bench.
    """
    from robustbench_tin.benchmarks.commands.transfer import transfer as run_transfer
    from robustbench_tin.progress import ConsoleReporter

    console = make_console()
    opened = run_transfer(
        run,
        attack=attack,
        eps=eps,
        device=device,
        plugins=plugin or (),
        reporter=ConsoleReporter(console),
        **given_options(context, part),
    )
    render_tables(opened.transfers.tables, console)
    say(f"Tables: {opened.path}/transfer.md; the worst source of each cell: results.md, robust-tin show")
