"""The command ``evaluate``: measure trained models without training."""

from __future__ import annotations

from typing import Annotated

import typer

from robustbench_tin.benchmarks.planning.config import EvaluateConfig, TableConfig
from robustbench_tin.cli.options_from_configs import given_options, with_options
from robustbench_tin.cli.panels import MEASURE
from robustbench_tin.cli.process import Command, say
from robustbench_tin.cli.tables import print_tables, require_no_failure
from robustbench_tin.streams import make_console


def add_commands(app: typer.Typer) -> None:
    """Register the command."""
    app.command(
        cls=Command,
        rich_help_panel=MEASURE,
        epilog="Examples:\n\n"
        "robust-tin evaluate --model timm:resnet18 --weights best.pt --data DATA\n\n"
        "robust-tin evaluate --model net.pt --model net.onnx --normalize imagenet --eps 4/255\n\n"
        "robust-tin evaluate --model mine.py:build --model-arg width=64 --weights best.pt --attacks"
        " autoattack\n\n"
        "robust-tin evaluate --model robustbench.utils:load_model --model-arg"
        " model_name=Carmon2019Unlabeled --model-arg dataset=cifar10 --data DATA --eps 8/255",
    )(evaluate)


@with_options
def evaluate(
    context: typer.Context,
    asked: EvaluateConfig,
    shown: TableConfig,
    published: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MEASURE=FRACTION",
            help="Published accuracy to compare with, for example from a leaderboard: clean=0.8969,"
            " autoattack@8/255=0.5953. A line says whether it lies in the 95 % interval. Repeatable.",
            rich_help_panel="Tables",
        ),
    ] = None,
) -> None:
    """Measure trained models, clean and under attack. Nothing is trained."""
    from robustbench_tin.benchmarks.evaluate_run import evaluate_run
    from robustbench_tin.benchmarks.gate.published import compare_published, parse_published
    from robustbench_tin.progress import ConsoleReporter

    yardsticks = parse_published(published or ())
    console = make_console()
    run = evaluate_run(**given_options(context, asked), reporter=ConsoleReporter(console))
    print_tables(run, run.tables_of(shown), console)
    for figure in compare_published(list(run.iter_records()), yardsticks):
        say(f"Published: {figure.text}")
    say(f"Tables and records: {run.path}/results.md, .csv, .json")
    require_no_failure(run)
