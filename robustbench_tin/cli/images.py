"""The commands that write or read image sets: ``fool``, ``crop``, ``predict``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_tin.benchmarks.planning.config import CellConfig, DataConfig, TrainingConfig
from robustbench_tin.cli.options_from_configs import as_option, given_options, with_options
from robustbench_tin.cli.panels import IMAGES
from robustbench_tin.cli.process import Command, say
from robustbench_tin.streams import make_console
from robustbench_tin.text import counted

Device = Annotated[str | None, as_option(TrainingConfig, "device", rich_help_panel=None)]
Plugin = Annotated[list[Path] | None, as_option(CellConfig, "plugins")]
Fill = Annotated[
    bool,
    typer.Option("--fill", help="Enlarge the box to the image's size instead of padding it with black."),
]
TRAINED = (
    "Trained model: a run (with --cell if it has several cells), RUN/MODEL/DEFENSE/SEED, or a weights file"
    " that robust-tin wrote."
)
OneCell = Annotated[
    str | None,
    typer.Option(help="Cell of the run: MODEL/DEFENSE/SEED, for example mobilenet/fgsm-at/0."),
]


class Part(StrEnum):
    """Split of a data set that ``robust-tin predict`` can read."""

    train = "train"
    val = "val"
    test = "test"


def add_commands(app: typer.Typer) -> None:
    """Register these commands."""
    app.command(
        cls=Command,
        rich_help_panel=IMAGES,
        epilog="Example: robust-tin fool --model runs/tin --cell densenet169/none/0 --eps 8/255"
        " --data DATA/tiny-imagenet-200 --out fooled",
    )(fool)
    app.command(
        cls=Command,
        rich_help_panel=IMAGES,
        epilog="Example: robust-tin crop --data DATA/tiny-imagenet-200 --out crops",
    )(crop)
    app.command(
        cls=Command,
        rich_help_panel=IMAGES,
        epilog="Example: robust-tin predict runs/tin --cell densenet169/none/0 --data DATA/tiny-imagenet-200"
        " --split test --out predictions.csv",
    )(predict)


@with_options
def fool(
    context: typer.Context,
    model: Annotated[str, typer.Option(help=TRAINED)],
    out: Annotated[Path, typer.Option(help="Directory to write; the same command continues it.")],
    part: DataConfig,
    cell: OneCell = None,
    eps: Annotated[
        str, typer.Option(help="Budget in units of the pixel range [0, 1]; 8/255 works.")
    ] = "0.03",
    attack: Annotated[str, typer.Option(help="Attack, with settings: pgd:steps=20.")] = "fgsm",
    norm: Annotated[str, typer.Option(help="Norm of the threat model: linf or l2.")] = "linf",
    seed: Annotated[int, typer.Option(help="Seed of the attack's randomness.")] = 0,
    split: Annotated[str, typer.Option(help="Splits to attack: train, val or train,val.")] = "train",
    device: Device = None,
    plugin: Plugin = None,
) -> None:
    """Write a data set of adversarial images against a trained model, as PNG with a manifest.

    The data options default to those of the run's bench.
    """
    from robustbench_tin.benchmarks.commands.fool import IMAGES
    from robustbench_tin.benchmarks.commands.fool import fool as run_fool

    made = run_fool(
        model,
        out=out,
        cell=cell,
        eps=eps,
        attack=attack,
        norm=norm,
        seed=seed,
        split=split,
        device=device,
        plugins=plugin or (),
        reporter=console_reporter(),
        **given_options(context, part),
    )
    say(f"{made.fooled:,} of {made.images:,} adversarial images fool the model.")
    say(f"Data set: {made.path}; image by image: {made.path / IMAGES}")


@with_options
def crop(
    out: Annotated[Path, typer.Option(help="Directory to write; the same command continues it.")],
    part: DataConfig,
    fill: Fill = False,
) -> None:
    """Write a data set whose training images are cropped to their bounding boxes, as PNG."""
    from robustbench_tin.benchmarks.commands.crop import crop as run_crop

    made = run_crop(
        out=out,
        fill=fill,
        reporter=console_reporter(),
        **vars(part),
    )
    say(
        f"{counted(made.images, 'crop')}; {counted(made.skipped, 'image')} without a usable box left out."
        f" Data set: {made.path}"
    )


@with_options
def predict(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help=TRAINED)],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    part: DataConfig,
    cell: OneCell = None,
    split: Annotated[
        Part | None,
        typer.Option(help="Split to predict.", show_default="test, or val if there is no test split"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Images to predict instead of a split: a directory, or a CSV file with paths in its first"
            " column."
        ),
    ] = None,
    boxes: Annotated[
        bool, typer.Option("--boxes", help="Also predict each image cropped to its bounding box.")
    ] = False,
    fill: Fill = False,
    device: Device = None,
    plugin: Plugin = None,
) -> None:
    """Write a trained model's predictions as CSV: the five likeliest classes and their probabilities.

    The data options default to those of the run's bench.
    """
    from robustbench_tin.benchmarks.commands.predict import predict as run_predict

    made = run_predict(
        model,
        out=out,
        cell=cell,
        split=None if split is None else split.value,
        images=images,
        boxes=boxes,
        fill=fill,
        device=device,
        plugins=plugin or (),
        reporter=console_reporter(),
        **given_options(context, part),
    )
    left_out = f", {counted(made.left_out, 'unreadable image')} left out" if made.left_out else ""
    of = f" of {made.split}" if made.split else ""
    say(f"{counted(made.images, 'prediction')}{of}{left_out}: {made.path}")
    if made.top1 is not None and made.top5 is not None:
        say(
            f"Accuracy on {counted(made.labelled, 'labelled image')}: top-1 {100 * made.top1:.1f} %,"
            f" top-5 {100 * made.top5:.1f} %."
        )


def console_reporter() -> Any:
    """A reporter that shows the progress of a command on the console."""
    from robustbench_tin.progress import ConsoleReporter

    return ConsoleReporter(make_console())
