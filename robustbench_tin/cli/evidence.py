"""The commands that show what a run's numbers stand for: ``gallery``, ``saliency``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_tin.benchmarks.evidence.gallery import Rule
from robustbench_tin.benchmarks.planning.config import CellConfig, DataConfig, TrainingConfig
from robustbench_tin.cli.images import console_reporter
from robustbench_tin.cli.options_from_configs import as_option, given_options, with_options
from robustbench_tin.cli.process import Command, say
from robustbench_tin.text import counted

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Cells = Annotated[
    str,
    typer.Option(
        "--cell", metavar="CELL", help="Only these cells: MODEL/DEFENSE/SEED, such as '*/fgsm-at/*'."
    ),
]
Attacks = Annotated[str, typer.Option("--attack", help="Only these attacks of the run, such as 'pgd*'.")]
Device = Annotated[
    str | None, as_option(TrainingConfig, "device", show_default="the run's", rich_help_panel=None)
]
Plugin = Annotated[list[Path] | None, as_option(CellConfig, "plugins")]


def add_commands(app: typer.Typer) -> None:
    """Register these commands."""
    app.command(
        cls=Command,
        epilog="Examples:\n\nrobust-tin gallery runs/demo-1a2b3c4d\n\n"
        "robust-tin gallery runs/demo-1a2b3c4d --cell '*/fgsm-at/*' --attack pgd --rule survivors",
    )(gallery)


@with_options
def gallery(
    context: typer.Context,
    run: RunPath,
    part: DataConfig,
    cell: Cells = "*",
    attack: Attacks = "*",
    eps: Annotated[
        str | None,
        typer.Option(help="Budgets of the run, in units of the pixel range.", show_default="its largest"),
    ] = None,
    rule: Annotated[
        Rule,
        typer.Option(
            help="How images are chosen: random; smallest-margin (closest to the decision boundary after the"
            " attack); confident (surest wrong predictions); survivors (right under the attack)."
        ),
    ] = Rule.random,
    count: Annotated[int, typer.Option(help="Number of images of each cell, attack and eps.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the choice.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Directory to write into.", show_default="RUN/gallery")
    ] = None,
    device: Device = None,
    plugin: Plugin = None,
) -> None:
    """Write images of a run before and after its attacks, chosen by a rule, with the model's predictions.

    The adversarial images are made again from the run's plan and seeds, and each gives its stored result.
    The data options are those of the run's bench, unless given here.
    """
    from robustbench_tin.benchmarks.commands.gallery import gallery as run_gallery

    made = run_gallery(
        run,
        out=out,
        cells=cell,
        attacks=attack,
        eps=eps,
        rule=rule,
        count=count,
        seed=seed,
        device=device,
        plugins=plugin or (),
        reporter=console_reporter(),
        **given_options(context, part),
    )
    say(f"{counted(len(made.gallery.images), 'image')}, chosen by the rule {made.gallery.rule}: {made.path}")
    say(f"Page: {made.sheet}; every fact: {made.path}/gallery.json")
