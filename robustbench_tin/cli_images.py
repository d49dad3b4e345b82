"""The commands that make image sets or read them: ``fool``, ``crop``, ``predict``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_tin.cli_process import say
from robustbench_tin.streams import make_console

PART = "Data"

Data = Annotated[
    str,
    typer.Option(
        help="demo, tiny-imagenet, folder:PATH, or the path of a set: a directory or a zip file.",
        rich_help_panel=PART,
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        help="So many classes, or a comma list of their ids.", rich_help_panel=PART, show_default="all"
    ),
]
TrainPerClass = Annotated[
    int | None,
    typer.Option(help="So many training images a class.", rich_help_panel=PART, show_default="all"),
]
EvalImages = Annotated[
    int | None,
    typer.Option(help="So many validation images in all.", rich_help_panel=PART, show_default="all"),
]
SkipBroken = Annotated[
    bool,
    typer.Option("--skip-broken", help="Leave unreadable images out.", rich_help_panel=PART),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1.", show_default="the best there is")]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE.py", help="A Python file that registers what is used. Repeatable."
    ),
]
Fill = Annotated[
    bool,
    typer.Option("--fill", help="Enlarge the box to the image's size, instead of padding it with black."),
]
TRAINED = "RUN of one cell, RUN/CELL, or a weights file that robust-tin wrote."


class Part(StrEnum):
    """What ``robust-tin predict`` predicts."""

    train = "train"
    val = "val"
    test = "test"


def add_commands(app: typer.Typer) -> None:
    """Register these commands."""
    app.command(
        epilog="Example: robust-tin fool --model runs/tin/densenet169--none--s0 --eps 0.03"
        " --data DATA/tiny-imagenet-200 --out fooled"
    )(fool)
    app.command(epilog="Example: robust-tin crop --data DATA/tiny-imagenet-200 --out crops")(crop)
    app.command(
        epilog="Example: robust-tin predict runs/tin/densenet169--none--s0 --data DATA/tiny-imagenet-200"
        " --split test --out predictions.csv"
    )(predict)


def fool(
    model: Annotated[str, typer.Option(help=TRAINED)],
    out: Annotated[
        Path, typer.Option(help="Directory to write into; the same command given again goes on with it.")
    ],
    eps: Annotated[
        str, typer.Option(help="Budget in units of the pixel range [0, 1]; 8/255 works.")
    ] = "0.03",
    attack: Annotated[str, typer.Option(help="With settings: pgd:steps=20.")] = "fgsm",
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    seed: Annotated[int, typer.Option(help="Of the attack's randomness.")] = 0,
    split: Annotated[str, typer.Option(help="What is moved: train, val or train,val.")] = "train",
    device: Device = None,
    plugin: Plugin = None,
    data: Data = "demo",
    classes: Classes = None,
    train_per_class: TrainPerClass = None,
    eval_images: EvalImages = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Write a data set whose images were moved to fool a trained model, as PNG with a manifest."""
    from robustbench_tin.benchmarks.fool import IMAGES
    from robustbench_tin.benchmarks.fool import fool as run_fool

    made = run_fool(
        model,
        out=out,
        eps=eps,
        attack=attack,
        norm=norm,
        seed=seed,
        split=split,
        data=data,
        classes=classes,
        train_per_class=train_per_class,
        eval_images=eval_images,
        skip_broken=skip_broken,
        device=device,
        plugins=plugin or (),
        reporter=console_reporter(),
    )
    say(f"{made.fooled:,} of {made.images:,} moved images fool the model.")
    say(f"Data set: {made.path}; image by image: {made.path / IMAGES}")


def crop(
    out: Annotated[
        Path, typer.Option(help="Directory to write into; the same command given again goes on with it.")
    ],
    fill: Fill = False,
    data: Data = "demo",
    classes: Classes = None,
    train_per_class: TrainPerClass = None,
    eval_images: EvalImages = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Write a data set whose training images are cropped to their bounding boxes, as PNG."""
    from robustbench_tin.benchmarks.crop import crop as run_crop

    made = run_crop(
        out=out,
        fill=fill,
        data=data,
        classes=classes,
        train_per_class=train_per_class,
        eval_images=eval_images,
        skip_broken=skip_broken,
        reporter=console_reporter(),
    )
    say(
        f"{made.images:,} crops, {made.skipped:,} images without a usable box left out. Data set: {made.path}"
    )


def predict(
    model: Annotated[str, typer.Argument(help=TRAINED)],
    out: Annotated[Path, typer.Option(help="The CSV file.")],
    split: Annotated[Part, typer.Option(help="What to predict.")] = Part.test,
    images: Annotated[
        Path | None,
        typer.Option(help="Instead of a split: a directory, or a CSV file whose first column has paths."),
    ] = None,
    boxes: Annotated[
        bool, typer.Option("--boxes", help="Also predict each image cropped to its box, beside it.")
    ] = False,
    fill: Fill = False,
    device: Device = None,
    plugin: Plugin = None,
    data: Data = "demo",
    classes: Classes = None,
    train_per_class: TrainPerClass = None,
    eval_images: EvalImages = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Write what a trained model answers for each image: file, class, class name, the top five."""
    from robustbench_tin.benchmarks.predict import predict as run_predict

    made = run_predict(
        model,
        out=out,
        split=split.value,
        images=images,
        boxes=boxes,
        fill=fill,
        data=data,
        classes=classes,
        train_per_class=train_per_class,
        eval_images=eval_images,
        skip_broken=skip_broken,
        device=device,
        plugins=plugin or (),
        reporter=console_reporter(),
    )
    left_out = f", {made.left_out:,} unreadable images left out" if made.left_out else ""
    say(f"{made.images:,} predictions{left_out}: {made.path}")


def console_reporter() -> Any:
    """Tells people how far a command is."""
    from robustbench_tin.benchmarks.progress import ConsoleReporter

    return ConsoleReporter(make_console())
