"""The commands of the gate: ``baseline`` and ``check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

RULES = "Rules"
REPORTS = "Reports"


def add_commands(app: typer.Typer) -> None:
    """Register these commands."""
    app.command(epilog="Example: robust-tin baseline runs/main --out robustness-baseline.json")(baseline)
    app.command(
        epilog="Examples:\n\n"
        "robust-tin check runs/new --baseline robustness-baseline.json\n\n"
        "robust-tin check runs/new --baseline robustness-baseline.json --max-drop 0.01 --min"
        " pgd@0.03=0.20\n\nrobust-tin check --power 0.03"
    )(check)


def baseline(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="A run, or runs that differ in their seeds only.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write, to keep in the repository.")] = Path(
        "robustness-baseline.json"
    ),
) -> None:
    """Write down how robust a run's models are, for robust-tin check to compare with."""
    from robustbench_tin.benchmarks.gate.baseline import make_baseline
    from robustbench_tin.benchmarks.gate.subject import from_run

    made = make_baseline([from_run(run) for run in runs])
    made.write(out)
    measures = sum(len(entry.measures) for entry in made.entries)
    seeds = min(len(entry.seeds) for entry in made.entries)
    print(f"{out}: {measures} measures of {made.images:,} images, {out.stat().st_size / 1000:.1f} kB")
    if seeds == 1:
        print(
            "One seed: changes around the same weights can be judged; for re-trainings bench with --seeds"
            " 0,1,2,3,4, so that it is known how far they lie apart."
        )


def check(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run directory.", show_default=False)
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="A file of robust-tin baseline.", show_default="pyproject.toml's", rich_help_panel=RULES
        ),
    ] = None,
    max_drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SELECTOR=]FRACTION",
            help="How much a measure may lose: 0.02, pgd@0.03=0.02, resnet*/none/pgd*=0.02; the last"
            " that fits holds. Repeatable.",
            show_default="0.01",
            rich_help_panel=RULES,
        ),
    ] = None,
    min: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SELECTOR=FRACTION",
            help="What a measure must be at least: pgd@0.03=0.20. Repeatable.",
            rich_help_panel=RULES,
        ),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Rules from a file; those given beside it come after.",
            show_default="[tool.robust-tin] of pyproject.toml",
            rich_help_panel=RULES,
        ),
    ] = None,
    level: Annotated[
        float | None,
        typer.Option(
            help="At most this part of tables without a true drop fails by chance.",
            show_default="0.05",
            rich_help_panel=RULES,
        ),
    ] = None,
    same_weights: Annotated[
        bool,
        typer.Option(
            "--same-weights", help="Only what is around the weights changed.", rich_help_panel=RULES
        ),
    ] = False,
    retrained: Annotated[
        bool, typer.Option("--retrained", help="The weights were trained anew.", rich_help_panel=RULES)
    ] = False,
    power: Annotated[
        float | None,
        typer.Option(
            metavar="DROP",
            help="Say how many images and seeds it takes to see this drop, and stop.",
            rich_help_panel=RULES,
        ),
    ] = None,
) -> None:
    """Fail where robustness got worse than a baseline's, and only then.

    Exit code 0: no measure is worse; 1: some are, or are no longer to be believed; 2: some cannot be
    compared.
    """
    from robustbench_tin.benchmarks.gate.check import check as run_check
    from robustbench_tin.benchmarks.gate.question import Kind
    from robustbench_tin.benchmarks.gate.rules import find_rules, read_rules
    from robustbench_tin.benchmarks.gate.subject import from_run
    from robustbench_tin.benchmarks.gate.text import table
    from robustbench_tin.errors import InvalidSettingError

    chosen = find_rules() if rules is None else read_rules(rules)
    chosen = chosen.then(max_drop or (), min or (), level)
    if same_weights and retrained:
        raise InvalidSettingError("got both --same-weights and --retrained; give one of them")
    said = Kind.same_weights if same_weights else Kind.retrained if retrained else None
    if power is not None:
        _print_power(power, baseline or chosen.baseline, chosen.level)
        return
    if run is None:
        raise InvalidSettingError("nothing to check; give a run directory")
    report = run_check(from_run(run), baseline, chosen, said=said)
    _print_table(table(report))
    raise typer.Exit(report.exit_code)


def _print_power(drop: float, baseline: Path | None, level: float) -> None:
    from robustbench_tin.benchmarks.gate.reading import read_baseline
    from robustbench_tin.benchmarks.gate.sight import power_table, seeds_table
    from robustbench_tin.errors import InvalidSettingError

    if not 0 < drop < 1:
        raise InvalidSettingError(f"power got {drop}; expected a drop between 0 and 1, such as 0.03")
    known = None if baseline is None else read_baseline(baseline)
    measures = 12 if known is None else sum(len(entry.measures) for entry in known.entries)
    _print_table(power_table(drop, measures, level))
    if known is not None:
        _print_table(seeds_table(drop, known, level))


def _print_table(table: Any) -> None:
    """The table on a console wide enough for it, and its notes as plain lines that can be searched."""
    from dataclasses import replace

    from rich.console import Console

    console = Console()
    console = console if console.is_terminal else Console(width=160)
    console.print(table.title, highlight=False, markup=False, soft_wrap=True)
    console.print(replace(table, title="", notes=()).rich())
    for note in table.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
