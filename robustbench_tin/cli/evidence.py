"""The commands that show images behind a run's numbers: ``gallery``, ``saliency``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_tin.benchmarks.evidence.choices import Method, Rule
from robustbench_tin.benchmarks.planning.config import CellConfig, DataConfig, TrainingConfig
from robustbench_tin.cli.images import console_reporter
from robustbench_tin.cli.options_from_configs import as_option, given_options, with_options
from robustbench_tin.cli.panels import IMAGES
from robustbench_tin.cli.process import Command, say
from robustbench_tin.cli.tables import render_tables
from robustbench_tin.streams import make_console
from robustbench_tin.text import counted

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Cells = Annotated[
    str,
    typer.Option(
        "--cell",
        metavar="CELL",
        help="Only these cells: MODEL/DEFENSE/SEED, for example '*/fgsm-at/*'.",
    ),
]
Attacks = Annotated[str, typer.Option("--attack", help="Only these attacks of the run, for example 'pgd*'.")]
Device = Annotated[
    str | None, as_option(TrainingConfig, "device", show_default="the run's", rich_help_panel=None)
]
Plugin = Annotated[list[Path] | None, as_option(CellConfig, "plugins")]


def add_commands(app: typer.Typer) -> None:
    """Register these commands."""
    app.command(
        cls=Command,
        rich_help_panel=IMAGES,
        epilog="Examples:\n\nrobust-tin gallery runs/demo-1a2b3c4d\n\n"
        "robust-tin gallery runs/demo-1a2b3c4d --cell '*/fgsm-at/*' --attack pgd --rule survivors",
    )(gallery)
    app.command(
        cls=Command,
        rich_help_panel=IMAGES,
        epilog="Examples:\n\nrobust-tin saliency runs/demo-1a2b3c4d\n\n"
        "robust-tin saliency runs/demo-1a2b3c4d --cell '*/bbox-crop/*' --method grad-cam --attack pgd",
    )(saliency)


@with_options
def gallery(
    context: typer.Context,
    run: RunPath,
    part: DataConfig,
    cell: Cells = "*",
    attack: Attacks = "*",
    eps: Annotated[
        str | None,
        typer.Option(
            help="Budgets of the run, in units of the pixel range [0, 1].", show_default="its largest"
        ),
    ] = None,
    rule: Annotated[
        Rule,
        typer.Option(
            help="Rule that chooses the images: random; smallest-margin (closest to the decision boundary"
            " after the attack); confident (wrong predictions with the highest probability); survivors"
            " (classified correctly under the attack)."
        ),
    ] = Rule.random,
    count: Annotated[int, typer.Option(help="Number of images per cell, attack and eps.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the random choice.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Directory to write into.", show_default="RUN/gallery")
    ] = None,
    device: Device = None,
    plugin: Plugin = None,
) -> None:
    """Write images of a run before and after its attacks, chosen by a rule, with the model's predictions.

    robust-tin makes the adversarial images that the run does not keep again,
    from its plan and seeds. Each gives the same result as in the run. The data
    options default to those of the run's bench.
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


@with_options
def saliency(
    context: typer.Context,
    run: RunPath,
    part: DataConfig,
    cell: Cells = "*",
    method: Annotated[
        Method,
        typer.Option(help="Attribution method: saliency (gradients), integrated-gradients or grad-cam."),
    ] = Method.saliency,
    attack: Annotated[
        str | None,
        typer.Option(help="Attack of the run that makes the attacked images.", show_default="its first"),
    ] = None,
    eps: Annotated[
        str | None,
        typer.Option(
            help="One budget of the run, in units of the pixel range [0, 1].", show_default="its largest"
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Number of images, chosen at random.")] = 200,
    pictures: Annotated[int, typer.Option(help="Number of these images whose maps are written.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the random choice.")] = 0,
    layer: Annotated[
        str,
        typer.Option(
            help="Layer that grad-cam explains, for example network.layer4.",
            show_default="the last feature map",
        ),
    ] = "",
    device: Device = None,
    plugin: Plugin = None,
) -> None:
    """Measure the share of each cell's attribution that lies inside the object's box.

    It explains the predicted class on clean images, on the content of their
    boxes alone, and on attacked images. It writes the results to RUN/saliency.
    The data options default to those of the run's bench.
    """
    from robustbench_tin.benchmarks.commands.saliency import saliency as run_saliency
    from robustbench_tin.benchmarks.evidence.saliency_differences import differences_table
    from robustbench_tin.benchmarks.evidence.saliency_table import saliency_table

    made = run_saliency(
        run,
        method=method,
        cells=cell,
        attack=attack,
        eps=eps,
        count=count,
        pictures=pictures,
        seed=seed,
        layer=layer,
        device=device,
        plugins=plugin or (),
        reporter=console_reporter(),
        **given_options(context, part),
    )
    if made.shares:
        tables = [saliency_table(made.shares)]
        if made.differences:
            tables.append(differences_table(made.differences))
        render_tables(tables, make_console())
    for page in made.pages:
        say(f"Maps: {page}")
