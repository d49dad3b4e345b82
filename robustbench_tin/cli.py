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

from robustbench_tin import cli_gate, cli_images
from robustbench_tin._version import __version__
from robustbench_tin.cli_process import CommandGroup, complain, interruptible, say, told_warnings
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

    from robustbench_tin.benchmarks.tables import Table

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

TRAINING = "Training"
PART = "Data"
ATTACKING = "Attack"
RUNNING = "Run"

Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        help="A Python file that registers attacks, defenses, backbones or data sets. Repeatable.",
    ),
]


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
def bench(
    context: typer.Context,
    models: Annotated[
        str,
        typer.Option(
            help="Backbones: names, patterns (densenet*), timm:NAME, or all.", rich_help_panel=RUNNING
        ),
    ] = "all",
    defenses: Annotated[
        str,
        typer.Option(help="Defenses, combined with +: none,bbox-crop+fgsm-at.", rich_help_panel=RUNNING),
    ] = "none",
    seeds: Annotated[
        str, typer.Option(help="One cell is trained for each, such as 0,1,2.", rich_help_panel=RUNNING)
    ] = "0",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run directory; the same command given again goes on with it."
            " [default: runs/ and a name made from the plan]",
            rich_help_panel=RUNNING,
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="Take these options, see robust-tin presets; those given beside it win.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check everything, say what would run, and stop.", rich_help_panel=RUNNING
        ),
    ] = False,
    print_plan: Annotated[
        bool,
        typer.Option(
            "--print-plan", help="The same, cell by cell with every setting.", rich_help_panel=RUNNING
        ),
    ] = False,
    plugin: Plugin = None,
    attacks: Annotated[
        str,
        typer.Option(help="Attacks with settings: fgsm,pgd:steps=20,restarts=2.", rich_help_panel=ATTACKING),
    ] = "fgsm,pgd",
    eps: Annotated[
        str,
        typer.Option(
            help="Budgets in units of the pixel range [0, 1]; 8/255 works. 0 is the clean measure.",
            rich_help_panel=ATTACKING,
        ),
    ] = "0.0,0.01,0.03",
    norm: Annotated[str, typer.Option(help="linf or l2.", rich_help_panel=ATTACKING)] = "linf",
    worst_case: Annotated[
        bool,
        typer.Option(
            "--worst-case/--no-worst-case",
            help="Add what is right under every one of the attacks.",
            rich_help_panel=ATTACKING,
        ),
    ] = False,
    eot: Annotated[
        int,
        typer.Option(
            help="Passes averaged for one gradient, for defenses that are random at test time.",
            rich_help_panel=ATTACKING,
        ),
    ] = 1,
    oblivious: Annotated[
        bool,
        typer.Option(
            "--oblivious/--no-oblivious",
            help="Attack the bare classifier, as one who does not know what the defense wraps around it.",
            rich_help_panel=ATTACKING,
        ),
    ] = False,
    eight_bit: Annotated[
        bool,
        typer.Option(
            "--8bit/--no-8bit",
            help="Round adversarial images to 8 bits before they count.",
            rich_help_panel=ATTACKING,
        ),
    ] = False,
    search: Annotated[
        str | None,
        typer.Option(
            help="What attacks search with: exact (the model itself), fixed (float32, batch norm folded),"
            " fastest (a form of the model that agrees with it, by timing), auto (fastest for attacks until"
            " broken, else fixed). Verdicts are always the model's in float32.",
            rich_help_panel=ATTACKING,
            show_default="auto",
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust/--no-trust",
            help="Check each cell's figures for signs that they are not to be believed.",
            rich_help_panel=ATTACKING,
        ),
    ] = True,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic/--no-deterministic",
            help="Choose nothing by timing; the same as --search fixed.",
            rich_help_panel=ATTACKING,
        ),
    ] = False,
    data: Annotated[
        str,
        typer.Option(
            help="demo, tiny-imagenet, folder:PATH, or the path of a set: a directory or a zip file.",
            rich_help_panel=PART,
        ),
    ] = "demo",
    classes: Annotated[
        str | None,
        typer.Option(
            help="So many classes, or a comma list of their ids.", rich_help_panel=PART, show_default="all"
        ),
    ] = None,
    train_per_class: Annotated[
        int | None,
        typer.Option(help="So many training images a class.", rich_help_panel=PART, show_default="all"),
    ] = None,
    eval_images: Annotated[
        int | None,
        typer.Option(help="So many validation images in all.", rich_help_panel=PART, show_default="all"),
    ] = None,
    skip_broken: Annotated[
        bool,
        typer.Option(
            "--skip-broken/--no-skip-broken",
            help="Leave unreadable images out and count them.",
            rich_help_panel=PART,
        ),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training images.",
            rich_help_panel=TRAINING,
            show_default="the data set's and backbone's",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Images a training step.", rich_help_panel=TRAINING, show_default="24 to 192"),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Highest learning rate.", rich_help_panel=TRAINING, show_default="the backbone's; sgd: 0.1"
        ),
    ] = None,
    optimizer: Annotated[
        str, typer.Option(help="adamw, adam, or sgd with Nesterov's momentum.", rich_help_panel=TRAINING)
    ] = "adamw",
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="On kernels and matrices.",
            rich_help_panel=TRAINING,
            show_default="0.05, 0 or 0.0005, the optimiser's",
        ),
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(
            help="Of the learning rate: one-cycle, cosine, step (a tenth at half, a hundredth at three"
            " quarters), or constant.",
            rich_help_panel=TRAINING,
        ),
    ] = "one-cycle",
    clip_norm: Annotated[
        float,
        typer.Option(
            help="Gradients longer than this are scaled back to it; 0: none are.", rich_help_panel=TRAINING
        ),
    ] = 1.0,
    label_smoothing: Annotated[
        float,
        typer.Option(
            help="Part of a label's weight that is spread over all classes.", rich_help_panel=TRAINING
        ),
    ] = 0.0,
    average: Annotated[
        str,
        typer.Option(
            help="End with an average of the weights: none, ema (of all steps), swa (of the last quarter's"
            " epochs).",
            rich_help_panel=TRAINING,
        ),
    ] = "none",
    clean_epochs: Annotated[
        int,
        typer.Option(
            help="Epochs on clean images before adversarial training begins.", rich_help_panel=TRAINING
        ),
    ] = 0,
    early_stop: Annotated[
        int | None,
        typer.Option(
            help="Hold out a twentieth of the training images (64 to 1000), stop after so many epochs without"
            " a higher PGD-5 accuracy on them, and end with the best weights.",
            rich_help_panel=TRAINING,
            show_default="train to the end",
        ),
    ] = None,
    train: Annotated[
        str,
        typer.Option(
            help="What is trained: head, last:N layers, all, or stages: head:epochs=2,all:rate=0.1.",
            rich_help_panel=TRAINING,
        ),
    ] = "all",
    head_rate: Annotated[
        float,
        typer.Option(
            help="The head's learning rate, as a multiple of the others'.", rich_help_panel=TRAINING
        ),
    ] = 1.0,
    progressive: Annotated[
        float,
        typer.Option(
            help="Progressive resizing: the image side at which training begins, as a part of the full side"
            " (0.5: half). It grows in two steps and is full for the last 40 % of the epochs.",
            rich_help_panel=TRAINING,
            show_default="1.0: full size throughout",
        ),
    ] = 1.0,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(
            help="Write a checkpoint so often, and after each epoch that ends a tenth of that or more after"
            " the last.",
            rich_help_panel=TRAINING,
        ),
    ] = 10.0,
    curves: Annotated[
        str,
        typer.Option(
            help="Training curves, a row an epoch in curves.csv: none; clean, of some validation images (one"
            " for 40 training images, 64 to 1000); robust, also of these under FGSM and PGD-5.",
            rich_help_panel=TRAINING,
        ),
    ] = "clean",
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard/--no-tensorboard",
            help="Also write them as TensorBoard events, in the run's tensorboard/.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Pixels that the network sees; images are resized inside the classifier.",
            rich_help_panel=TRAINING,
            show_default="the images' or the smallest",
        ),
    ] = None,
    interpolation: Annotated[
        str | None,
        typer.Option(
            help="How they are resized: nearest, bilinear, bicubic or area.",
            rich_help_panel=TRAINING,
            show_default="bilinear",
        ),
    ] = None,
    cut: Annotated[
        int | None,
        typer.Option(
            help="Drop so many of the last stages of VGG, ResNet, Inception or DenseNet; a new head follows.",
            rich_help_panel=TRAINING,
            show_default="0",
        ),
    ] = None,
    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained/--no-pretrained",
            help="Start from timm's published weights.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    skip_missing_weights: Annotated[
        bool,
        typer.Option(
            "--skip-missing-weights/--no-skip-missing-weights",
            help="Where they cannot be had, go on with the other backbones: not measured.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Start from this checkpoint (safetensors, or a torch file).", rich_help_panel=TRAINING
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda or cuda:1.", rich_help_panel=TRAINING, show_default="the best there is"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of training: float32 or bfloat16.",
            rich_help_panel=TRAINING,
            show_default="what the device is fast in",
        ),
    ] = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile",
            help="Train with torch.compile; where that fails, a line says so and training goes on without.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
) -> None:
    """Train backbones, attack them, and print accuracy clean against attacked."""
    from robustbench_tin.benchmarks.bench import bench as run_bench
    from robustbench_tin.benchmarks.progress import ConsoleReporter

    console = make_console()
    options: dict[str, Any] = dict(  # noqa: C408 - the keywords of the call
        models=models,
        defenses=defenses,
        attacks=attacks,
        eps=eps,
        norm=norm,
        worst_case=worst_case,
        eot=eot,
        oblivious=oblivious,
        eight_bit=eight_bit,
        search=search,
        deterministic=deterministic,
        trust=trust,
        seeds=seeds,
        data=data,
        classes=classes,
        train_per_class=train_per_class,
        eval_images=eval_images,
        skip_broken=skip_broken,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        schedule=schedule,
        clip_norm=clip_norm,
        label_smoothing=label_smoothing,
        average=average,
        clean_epochs=clean_epochs,
        early_stop=early_stop,
        train=train,
        head_rate=head_rate,
        progressive=progressive,
        checkpoint_minutes=checkpoint_minutes,
        curves=curves,
        tensorboard=tensorboard,
        image_size=image_size,
        interpolation=interpolation,
        cut=cut,
        pretrained=pretrained,
        skip_missing_weights=skip_missing_weights,
        weights=weights,
        device=device,
        precision=precision,
        compile=compile,
        out=out,
        plugin=plugin or (),
    )
    if preset is not None:
        options = {name: value for name, value in options.items() if _is_given(context, name)}
    if "plugin" in options:
        options["plugins"] = options.pop("plugin")
    run = run_bench(
        **options,
        preset=preset,
        dry_run=dry_run,
        print_plan=print_plan,
        reporter=ConsoleReporter(console),
    )
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
    from robustbench_tin.benchmarks.curve_plots import draw_curves

    for picture in draw_curves(run, format=format):
        say(str(picture))


@app.command("list", epilog="Example: robust-tin list attacks")
def list_(
    what: Annotated[What, typer.Argument(help="What to list.")],
    plugin: Plugin = None,
) -> None:
    """List backbones, attacks, defenses or data sets: what each is and where it came from."""
    from rich.table import Table

    from robustbench_tin.catalogue import describe
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
def transfer(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    attack: Annotated[
        str, typer.Option(help="One that spends its full budget: mi-fgsm, pgd:steps=20.")
    ] = "mi-fgsm",
    eps: Annotated[
        str | None, typer.Option(help="Budgets in units of the pixel range.", show_default="the run's")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1.", show_default="the run's")] = None,
    plugin: Plugin = None,
    data: Annotated[
        str,
        typer.Option(
            help="What the run was made on; this and the rest as bench takes it.", rich_help_panel=PART
        ),
    ] = "demo",
    classes: Annotated[str | None, typer.Option(rich_help_panel=PART, show_default="all")] = None,
    train_per_class: Annotated[int | None, typer.Option(rich_help_panel=PART, show_default="all")] = None,
    eval_images: Annotated[int | None, typer.Option(rich_help_panel=PART, show_default="all")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", rich_help_panel=PART)] = False,
) -> None:
    """Make adversarial images on each cell of a run and measure every other cell on them."""
    from robustbench_tin.benchmarks.progress import ConsoleReporter
    from robustbench_tin.benchmarks.transfer import transfer as run_transfer

    console = make_console()
    opened = run_transfer(
        run,
        attack=attack,
        eps=eps,
        data=data,
        classes=classes,
        train_per_class=train_per_class,
        eval_images=eval_images,
        skip_broken=skip_broken,
        device=device,
        plugins=plugin or (),
        reporter=ConsoleReporter(console),
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


def _is_given(context: typer.Context, option: str) -> bool:
    """Whether an option stands on the command line, rather than being its default."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _require_no_failure(run: Any) -> None:
    """End a bench with a code of its own where a measure has failed, so that a script hears of it."""
    from robustbench_tin.benchmarks.status import StatusCode
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
