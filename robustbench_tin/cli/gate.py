"""The commands of the gate: ``baseline`` and ``check``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_tin.benchmarks.planning.config import EvaluationDataConfig, UserModelConfig
from robustbench_tin.cli.card import require_alone, verified
from robustbench_tin.cli.images import Device, console_reporter
from robustbench_tin.cli.options_from_configs import given_options, with_options
from robustbench_tin.cli.panels import GATE
from robustbench_tin.cli.process import Command, CtrlC, say
from robustbench_tin.streams import make_console
from robustbench_tin.text import counted

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.gate.baseline import Baseline
    from robustbench_tin.benchmarks.gate.candidate import Candidate
    from robustbench_tin.benchmarks.gate.comparison_mode import ComparisonMode
    from robustbench_tin.benchmarks.gate.result import CheckReport
    from robustbench_tin.benchmarks.gate.rules import Rules

RULES = "Rules"
REPORTS = "Reports"


def add_commands(app: typer.Typer) -> None:
    """Register these commands."""
    app.command(
        cls=Command,
        rich_help_panel=GATE,
        epilog="Example: robust-tin baseline runs/main --out robustness-baseline.json",
    )(baseline)
    app.command(
        cls=Command,
        rich_help_panel=GATE,
        epilog="Examples:\n\n"
        "robust-tin check runs/new --baseline robustness-baseline.json\n\n"
        "robust-tin check runs/new --baseline robustness-baseline.json --max-drop 0.01 --min"
        " pgd@0.03=0.20\n\nrobust-tin check --power 0.03\n\nrobust-tin check --card README.md",
    )(check)


@with_options
def baseline(
    *,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN...", help="A run directory, or several that differ only in their seeds."),
    ] = None,
    own: UserModelConfig,
    part: EvaluationDataConfig,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Baseline file to write; keep it in your repository.")] = Path(
        "robustness-baseline.json"
    ),
) -> None:
    """Save the robustness of a run's models as a baseline for robust-tin check."""
    from robustbench_tin.benchmarks.gate.baseline import make_baseline

    candidates = _candidates(runs or (), own, **vars(part), device=device)
    made = make_baseline(candidates)
    made.write(out)
    notes = [note for candidate in candidates for note in candidate.notes]
    more = "bench with --seeds 0,1,2,3,4" if own.model is None else "give --weights once for each training"
    tell_baseline(made, out, notes, more)


def tell_baseline(made: Baseline, out: Path, notes: Iterable[str], more_seeds: str) -> None:
    """Print the contents of a baseline file and the drops that it cannot detect.

    Args:
        made: the baseline.
        out: its file, which exists.
        notes: notes of the candidates that it was made from.
        more_seeds: advice on how to add seeds.
    """
    from robustbench_tin.benchmarks.gate.power_warnings import weak_spots

    measures = sum(len(entry.measures) for entry in made.entries)
    seeds = min(len(entry.seeds) for entry in made.entries)
    say(
        f"{out}: {counted(measures, 'measurement')} of {counted(made.images, 'image')},"
        f" {out.stat().st_size / 1000:.1f} kB"
    )
    for spot in (*notes, *weak_spots(made)):
        say(f"Warning: {spot}.")
    if seeds == 1:
        print(
            "The baseline has one seed. robust-tin can judge changes that keep the weights; for a re-training"
            f" it must assume the spread between seeds. To measure the spread, {more_seeds}."
        )


@with_options
def check(
    *,
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Baseline file, written by robust-tin baseline.",
            show_default="the rules'",
            rich_help_panel=RULES,
        ),
    ] = None,
    max_drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SELECTOR=]FRACTION",
            help="Largest drop allowed for a measurement, as a fraction: 0.02, pgd@0.03=0.02,"
            " resnet*/none/pgd*=0.02. The last option that matches a measurement applies. Repeatable.",
            show_default="0.01",
            rich_help_panel=RULES,
        ),
    ] = None,
    min: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SELECTOR=FRACTION",
            help="Smallest value allowed for a measurement, as a fraction: pgd@0.03=0.20. Repeatable.",
            rich_help_panel=RULES,
        ),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="File of rules; options on the command line take precedence.",
            show_default="[tool.robust-tin] of pyproject.toml, or robust-tin.toml",
            rich_help_panel=RULES,
        ),
    ] = None,
    level: Annotated[
        float | None,
        typer.Option(
            help="False-alarm rate: the probability that a check fails although nothing got worse.",
            show_default="0.05",
            rich_help_panel=RULES,
        ),
    ] = None,
    assumed_spread: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Standard deviation between seeds, as a fraction, that is assumed for a re-training if the"
            " baseline has one seed.",
            show_default="0.02",
            rich_help_panel=RULES,
        ),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.md",
            help="Model card of robust-tin card to verify: robust-tin measures its weights again. Give"
            " --weights, --model or --data if the card's directory does not contain them.",
            rich_help_panel=RULES,
        ),
    ] = None,
    own: UserModelConfig,
    part: EvaluationDataConfig,
    device: Device = None,
    same_weights: Annotated[
        bool,
        typer.Option(
            "--same-weights",
            help="The weights did not change, only the code around them.",
            rich_help_panel=RULES,
        ),
    ] = False,
    retrained: Annotated[
        bool, typer.Option("--retrained", help="The weights were trained again.", rich_help_panel=RULES)
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option(help="JUnit XML file to write.", rich_help_panel=REPORTS, show_default=False),
    ] = None,
    sarif: Annotated[
        Path | None, typer.Option(help="SARIF file to write.", rich_help_panel=REPORTS, show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Markdown file to write.", rich_help_panel=REPORTS, show_default=False),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="JSON file to write.", rich_help_panel=REPORTS, show_default=False)
    ] = None,
    github: Annotated[
        bool,
        typer.Option(
            "--github",
            help="Print GitHub annotations, and append the table to the file named by GITHUB_STEP_SUMMARY.",
            rich_help_panel=REPORTS,
        ),
    ] = False,
    changed: Annotated[
        bool,
        typer.Option(
            "--changed",
            help="In the table and in Markdown, show only the measurements that changed: better, worse,"
            " unreliable, new, missing or not comparable.",
            rich_help_panel=REPORTS,
        ),
    ] = False,
    require_power: Annotated[
        bool,
        typer.Option(
            "--require-power",
            help="Fail if the number of images and seeds is too small: if the check would miss a drop of"
            " the tolerance in more than one of five cases.",
            rich_help_panel=RULES,
        ),
    ] = False,
    allow_untrained: Annotated[
        bool,
        typer.Option(
            "--allow-untrained",
            help="Accept a model whose clean accuracy is not above chance.",
            rich_help_panel=RULES,
        ),
    ] = False,
    power: Annotated[
        float | None,
        typer.Option(
            metavar="DROP",
            help="Print the number of images and seeds needed to detect this drop (a fraction), and exit.",
            rich_help_panel=RULES,
        ),
    ] = None,
) -> None:
    """Fail if robustness got worse than in a baseline.

    Exit code 0: no measurement is worse.
    Exit code 1: a measurement is worse, or has become unreliable.
    Exit code 2: a measurement cannot be compared, or the check could not finish.

    The report files are written in each case.
    """
    from robustbench_tin.benchmarks.gate.comparison_mode import ComparisonMode
    from robustbench_tin.benchmarks.gate.rules import Rules
    from robustbench_tin.benchmarks.gate.rules_file import find_rules, read_rules
    from robustbench_tin.benchmarks.gate.text_report import table
    from robustbench_tin.errors import InvalidSettingError

    if power is not None:
        chosen = (find_rules() if rules is None else read_rules(rules)).then((), (), level)
        _print_power(power, baseline or chosen.baseline, chosen.level)
        return
    files = {"junit": junit, "sarif": sarif, "markdown": markdown, "json": json}
    with _reported(str(card or own.model or run or "no model"), files, github) as told:
        if card is not None:
            require_alone(run, baseline, rules)
        own_rules = Rules() if card is not None else find_rules()
        chosen = own_rules if rules is None else read_rules(rules)
        chosen = chosen.then(
            max_drop or (),
            min or (),
            level,
            assumed_spread=assumed_spread,
            require_power=require_power,
            allow_untrained=allow_untrained,
        )
        if same_weights and retrained:
            raise InvalidSettingError("got both --same-weights and --retrained; give one of them")
        forced_mode = (
            ComparisonMode.same_weights if same_weights else ComparisonMode.retrained if retrained else None
        )
        if card is not None:
            report = verified(card, chosen, own, given_options(context, part), device)
        else:
            report = _report(baseline, chosen, forced_mode, run, own, **vars(part), device=device)
        told.report = replace(report, only_moved=changed)
        _print_table(table(told.report))
    raise typer.Exit(told.report.exit_code)


def _report(
    baseline: Path | None,
    rules: Rules,
    forced_mode: ComparisonMode | None,
    run: Path | None,
    own: UserModelConfig,
    **options: Any,
) -> CheckReport:
    from robustbench_tin.benchmarks.gate.baseline_io import read_baseline
    from robustbench_tin.benchmarks.gate.check import check as run_check

    known = baseline or rules.baseline
    if own.model is not None:
        rules.require_budgets(own.norm)
    if own.model is not None and known is not None:
        read_baseline(known)  # measuring takes minutes: report a faulty baseline before it
    (candidate,) = _candidates(() if run is None else (run,), own, **options)
    return run_check(candidate, baseline, rules, forced_mode=forced_mode)


@dataclass
class _Told:
    """The report that the report files will contain."""

    report: CheckReport


@contextmanager
def _reported(name: str, files: dict[str, Path | None], github: bool) -> Iterator[_Told]:
    """Write reports in any case, so that no old file remains after a check that failed or was killed."""
    from robustbench_tin.benchmarks.gate.ci_reports import write_reports
    from robustbench_tin.benchmarks.gate.result import CheckReport
    from robustbench_tin.errors import ForeignExitError, RobustTinError, one_line

    unfinished = CheckReport(name, None, 0, 0.0, (), failure="the check did not finish")
    write_reports(unfinished, files)
    told = _Told(unfinished)
    try:
        yield told
    except CtrlC:
        raise
    except (SystemExit, KeyboardInterrupt, typer.Exit, typer.Abort) as error:
        stopped = ForeignExitError(error)
        _write(replace(unfinished, failure=str(stopped)), files, github)
        raise stopped from error
    except BaseException as error:
        why = str(error) if isinstance(error, RobustTinError) else one_line(error)
        _write(replace(unfinished, failure=why), files, github)
        raise
    _write(told.report, files, github)


def _write(report: CheckReport, files: dict[str, Path | None], github: bool) -> None:
    from robustbench_tin.benchmarks.gate.ci_reports import as_annotations, as_markdown, write_reports
    from robustbench_tin.errors import RunError

    write_reports(report, files)
    if not github:
        return
    print(as_annotations(report), end="")
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with Path(summary).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(as_markdown(report))
        except OSError as error:
            raise RunError(
                f"GITHUB_STEP_SUMMARY names '{summary}', which cannot be written: {error.strerror}; expected"
                " a file that can be written"
            ) from error


def _candidates(runs: Sequence[Path], own: UserModelConfig, **options: Any) -> list[Candidate]:
    """The candidates stored in the runs, or the user's model, measured now."""
    from robustbench_tin.benchmarks.gate.candidate import from_run
    from robustbench_tin.errors import InvalidSettingError

    if own.model is None:
        if not runs:
            raise InvalidSettingError("got nothing to check; give a run directory, or --model")
        return [from_run(run) for run in runs]
    if runs:
        raise InvalidSettingError(f"got both a run, '{runs[0]}', and --model '{own.model}'; give one of them")
    from robustbench_tin.benchmarks.gate.trainings import measure_trainings
    from robustbench_tin.benchmarks.gate.user_model import UserModelSource

    asked = {**vars(own), **options}
    weights = asked.pop("weights")
    return [measure_trainings(UserModelSource(**asked), weights, console_reporter())]


def _print_power(drop: float, baseline: Path | None, level: float) -> None:
    from robustbench_tin.benchmarks.gate.baseline_io import read_baseline
    from robustbench_tin.benchmarks.gate.power_warnings import power_table, seeds_table
    from robustbench_tin.errors import InvalidSettingError

    if not 0 < drop < 1:
        raise InvalidSettingError(f"power got {drop}; expected a drop between 0 and 1, such as 0.03")
    known = None if baseline is None else read_baseline(baseline)
    measures = 12 if known is None else sum(len(entry.measures) for entry in known.entries)
    _print_table(power_table(drop, measures, level))
    if known is not None:
        _print_table(seeds_table(drop, known, level))


def _print_table(table: Any) -> None:
    """Print a table on a wide enough console, and its notes as plain lines that can be searched."""
    from robustbench_tin.benchmarks.reporting.terminal import TerminalTable

    say(table.title)
    if table.rows:
        make_console().print(TerminalTable(replace(table, title="", notes=())))
    for note in table.notes:
        say(note)
