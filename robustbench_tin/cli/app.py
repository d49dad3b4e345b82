"""The ``robust-tin`` command: parses, calls, prints; no logic of its own.

Nothing heavy is imported at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_tin._version import __version__
from robustbench_tin.benchmarks.planning.config import BenchConfig, CellConfig, DataConfig, TrainingConfig
from robustbench_tin.cli import gate as cli_gate
from robustbench_tin.cli import images as cli_images
from robustbench_tin.cli.options import as_option, given_options, with_options
from robustbench_tin.cli.process import CommandGroup, complain, interruptible, say, told_warnings
from robustbench_tin.errors import InterruptedByUserError, RobustTinError
from robustbench_tin.streams import (
    GuardedStream,
    guarded_streams,
    make_console,
    was_closed_by_its_reader,
)
from robustbench_tin.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from robustbench_tin.benchmarks.reporting.results_table import Table

# The base of what typer raises for a wrong command line; it has no public name.
_CommandLineError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="robust-tin",
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: robust-tin bench --models mobilenet --eps 0.0,0.01,0.03",
)

Plugin = Annotated[list[Path] | None, as_option(CellConfig, "plugins")]


class What(StrEnum):
    """What ``robust-tin list`` lists."""

    models = "models"
    attacks = "attacks"
    defenses = "defenses"
    datasets = "datasets"


class Format(StrEnum):
    """How ``robust-tin show`` prints a run."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"robust-tin {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """How much accuracy survives an attack, for each backbone and each defense.

    Trains image classifiers, attacks them, and prints clean against attacked top-1 and top-5.
    """


@app.command(
    epilog="Examples:\n\n"
    "robust-tin bench --models all --eps 0.0,0.01,0.03\n\n"
    "robust-tin bench --data DATA/tiny-imagenet-200 --classes 10 --models mobilenet,resnet50"
    " --defenses none,bbox-crop,fgsm-at\n\n"
    "robust-tin bench --models 'densenet*' --attacks fgsm,pgd:steps=20,restarts=2 --eps 4/255,8/255"
)
@with_options
def bench(context: typer.Context, asked: BenchConfig) -> None:
    """Train backbones, attack them, and print accuracy clean against attacked."""
    from robustbench_tin.benchmarks.bench import bench as run_bench
    from robustbench_tin.progress import ConsoleReporter

    console = make_console()
    run = run_bench(**given_options(context, asked), reporter=ConsoleReporter(console))
    if run is not None:
        _print_tables(run, console)
        say(f"Tables and records: {run.path}/results.md, .csv, .json")
        _require_no_failure(run)


@app.command(epilog="Example: robust-tin show runs/demo-1a2b3c4d --format markdown")
def show(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    format: Annotated[
        Format, typer.Option(help="csv and json are the records, one row a measure.")
    ] = Format.table,
) -> None:
    """Print a finished run's tables or records."""
    from robustbench_tin.benchmarks.run import Run, records_csv, records_json

    opened = Run.load(run)
    for note in opened.notes:
        complain(f"note: {note}")
    if format is Format.table:
        _print_tables(opened, make_console())
    elif format is Format.markdown:
        print("\n\n".join(table.markdown() for table in opened.tables))
    elif format is Format.csv:
        print(records_csv(opened.records), end="")
    else:
        print(records_json(opened.records), end="")


@app.command(epilog="Example: robust-tin curves runs/demo-1a2b3c4d --format svg")
def curves(
    run: Annotated[Path, typer.Argument(help="A run directory, finished or not.")],
    format: Annotated[str, typer.Option(help="png or svg.")] = "png",
) -> None:
    """Draw the training curves of each cell of a run; needs matplotlib."""
    from robustbench_tin.benchmarks.reporting.plots import draw_curves

    for picture in draw_curves(run, format=format):
        say(str(picture))


@app.command("list", epilog="Example: robust-tin list attacks")
def list_(
    what: Annotated[What, typer.Argument(help="What to list.")],
    plugin: Plugin = None,
) -> None:
    """List backbones, attacks, defenses or data sets: what each is and where it came from."""
    from rich.table import Table

    from robustbench_tin.cli.listing import describe
    from robustbench_tin.registry import load_plugin

    for path in plugin or ():
        load_plugin(path)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("name", "what it is", "from"):
        table.add_column(column, overflow="fold")
    for row in describe(what.value):
        table.add_row(*map(printable, (row.name, row.summary, row.origin)))
    make_console().print(table)


@app.command(epilog="Example: robust-tin presets quick > mine.toml")
def presets(
    name: Annotated[str | None, typer.Argument(help="Print this one's file, to copy and edit.")] = None,
) -> None:
    """List the presets of bench, or print one."""
    from robustbench_tin.presets import load_preset, preset_names

    if name is not None:
        print(load_preset(name).text, end="")
        return
    for known in preset_names():
        print(f"{known:14}{load_preset(known).summary}")


@app.command(epilog="Example: robust-tin transfer runs/demo-1a2b3c4d --attack pgd")
@with_options
def transfer(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    part: DataConfig,
    attack: Annotated[
        str, typer.Option(help="Attack that spends its fixed budget: mi-fgsm, pgd:steps=20.")
    ] = "mi-fgsm",
    eps: Annotated[
        str | None, typer.Option(help="Budgets in units of the pixel range.", show_default="the run's")
    ] = None,
    device: Annotated[
        str | None, as_option(TrainingConfig, "device", show_default="the run's", rich_help_panel=None)
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Make adversarial images on each cell of a run and measure every other cell on them.

    The data options are those that the run was made with.
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
        **vars(part),
    )
    _print(opened.transfers.tables, console)
    say(f"Tables: {opened.path}/transfer.md; the worst source of each cell: results.md, robust-tin show")


cli_images.add_commands(app)
cli_gate.add_commands(app)


def main() -> None:
    """Run the command; a user's mistake is one line on the error stream and an exit code."""
    with guarded_streams() as output, told_warnings(), interruptible():
        code = _exit_code(output)
    raise SystemExit(code)


def _exit_code(output: GuardedStream | None) -> int:
    code = _run()
    if output is None:
        return code
    output.flush()
    if output.failure is None:
        return code
    if was_closed_by_its_reader(output.failure):
        complain("the reader of standard output has gone; the rest of the output is lost")
        return code
    complain(f"cannot write to standard output: {output.failure.strerror}; the rest of the output is lost")
    return code or RobustTinError.exit_code


def _run() -> int:
    try:
        return app(standalone_mode=False) or 0
    except RobustTinError as error:
        complain(str(error))
        return error.exit_code
    except _CommandLineError as error:
        complain(f"{error.format_message().rstrip('.')} (see robust-tin --help)")
        return int(error.exit_code)
    except typer.Abort:
        complain("interrupted")
        return InterruptedByUserError.exit_code
    except BaseException:  # noqa: BLE001 - a defect
        # Python's own code would be 1, by which `check` says that something is worse.
        traceback.print_exc()
        return RobustTinError.exit_code


def _require_no_failure(run: Any) -> None:
    """End a bench with a code of its own where a measure has failed, so that a script hears of it."""
    from robustbench_tin.benchmarks.codes.status import StatusCode
    from robustbench_tin.errors import RunError

    statuses = [record.status.code for record in run.iter_records()]
    failed = sum(status not in (StatusCode.ok, StatusCode.not_measured) for status in statuses)
    if failed:
        raise RunError(
            f"{failed} of {len(statuses)} measures failed, the tables say why; the same command tries them"
            " again"
        )


def _print_tables(run: Any, console: Any) -> None:
    from robustbench_tin.errors import RunError

    tables = run.tables
    if not tables:
        raise RunError(f"run '{run.path}' has no measures yet; give its bench command again to go on")
    _print(tables, console)


def _print(tables: Sequence[Table], console: Console) -> None:
    """Print tables with an empty line between them."""
    for index, table in enumerate(tables):
        if index:
            console.print()
        console.print(table.rich())
