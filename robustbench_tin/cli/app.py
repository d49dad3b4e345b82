"""The ``robust-tin`` command: it parses options, calls the Python API and prints the result.

The module imports nothing heavy at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import traceback
from typing import Annotated, Any

import typer

from robustbench_tin._version import __version__
from robustbench_tin.cli import card, compare, evaluate, evidence, gate, images, init, listing, reports, runs
from robustbench_tin.cli.process import CommandGroup, complain, interruptible, told_warnings
from robustbench_tin.errors import InterruptedByUserError, RobustTinError
from robustbench_tin.streams import (
    GuardedStream,
    guarded_streams,
    was_closed_by_its_reader,
)

# The base of typer's errors for a wrong command line; it has no public name.
_CommandLineError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="robust-tin",
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: robust-tin bench --models mobilenet --eps 0.0,0.01,0.03",
)


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
    """Measure how much accuracy image classifiers keep under adversarial attack.

    robust-tin trains classifiers, attacks them, and prints clean and attacked top-1 and top-5 accuracy.
    """


for commands in (runs, evaluate, compare, reports, evidence, images, gate, card, init, listing):
    commands.add_commands(app)


def main() -> None:
    """Run the command; a user's mistake ends with one line on the error stream and an exit code."""
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
        # Python's own exit code would be 1, which `check` reserves for "a measurement is worse".
        traceback.print_exc()
        return RobustTinError.exit_code
