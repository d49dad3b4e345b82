"""The command ``init``: write a baseline, rules and a CI file for a model."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_tin.benchmarks.gate.ci_templates import CiService
from robustbench_tin.benchmarks.planning.config import EvaluationDataConfig, UserModelConfig
from robustbench_tin.cli.gate import tell_baseline
from robustbench_tin.cli.images import Device, console_reporter
from robustbench_tin.cli.options_from_configs import given_options, with_options
from robustbench_tin.cli.panels import GATE
from robustbench_tin.cli.process import Command, say

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.gate.first_baseline import FirstBaseline
    from robustbench_tin.benchmarks.gate.project_files import ProjectFile

_FILES = "Files"
# In a terminal, init asks these questions in this order, for options that are not given.
_QUESTIONS = {
    "model": "Model (package.module:function, FILE.py:function, a backbone, timm:NAME, or a file: "
    "TorchScript, torch.export, ONNX)",
    "weights": "Weights file (empty: the model has its weights)",
    "data": "Images (a directory with a folder per class, a zip file, or demo)",
    "classes": "Number of classes, or class ids separated by commas (empty: all)",
    "normalize": "Normalisation of images for the model: imagenet or half (empty: it takes pixels in [0, 1])",
    "attacks": "Attacks",
    "eps": "Budgets in units of the pixel range [0, 1]",
}
_NEEDED = ("model", "data")


def add_commands(app: typer.Typer) -> None:
    """Register this command."""
    app.command(
        cls=Command,
        rich_help_panel=GATE,
        epilog="Example: robust-tin init --model mypackage.model:build --weights model.safetensors --data"
        " images --yes",
    )(init)


@with_options
def init(
    context: typer.Context,
    own: UserModelConfig,
    part: EvaluationDataConfig,
    device: Device = None,
    ci: Annotated[
        CiService | None,
        typer.Option(
            help="CI service to write a file for.",
            show_default="github, or the answer in a terminal",
            rich_help_panel=_FILES,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Baseline file to write.", rich_help_panel=_FILES)] = Path(
        "robustness-baseline.json"
    ),
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that exist.", rich_help_panel=_FILES)
    ] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            "-y",
            help="Ask no questions: use the default of each option that is not given.",
            rich_help_panel=_FILES,
        ),
    ] = False,
) -> None:
    """Set up a project for robust-tin check: measure the model once, write baseline, rules and CI file.

    --model and --data are required; in a terminal, robust-tin asks for missing
    options. It trains nothing, and overwrites nothing without --force. It writes
    the rules to pyproject.toml if there is one, else to robust-tin.toml. A trial
    on 20 images sets the number of images, so that a check takes minutes.
    """
    from robustbench_tin.benchmarks.gate.ci_templates import ci_file
    from robustbench_tin.benchmarks.gate.first_baseline import measure_first
    from robustbench_tin.benchmarks.gate.project_files import require_free, rules_file
    from robustbench_tin.benchmarks.gate.user_model import UserModelSource

    given = {**given_options(context, own), **given_options(context, part)}
    asking = not yes and _has_terminal()
    answers = _answers(given, asking=asking)
    service = ci or (_asked_service() if asking else CiService.github)
    place = ci_file(service)
    # Check this before the measurement, which takes minutes.
    rules = rules_file(out, force=force)
    if not force:
        others = [] if rules.extends else [rules.path]
        require_free([out, *others, *([] if place is None else [place])])
    options: dict[str, Any] = {**vars(own), **vars(part), **answers, "device": device}
    weights = [Path(_from_here(str(path))) for path in options.pop("weights")]
    source = UserModelSource(**options)
    source = replace(source, model=_from_here(source.model), data=_from_here(source.data))
    first = measure_first(source, weights, console_reporter())
    _write(first, rules, out, service, place)


def _answers(given: dict[str, Any], *, asking: bool) -> dict[str, Any]:
    """The given options, and the user's answers for options that are missing."""
    from robustbench_tin.errors import InvalidSettingError

    missing = [name for name in _NEEDED if name not in given]
    if missing and not asking:
        words = " and ".join(f"--{name}" for name in missing)
        raise InvalidSettingError(
            f"init needs {words}; give them on the command line, or run init in a terminal to be asked"
        )
    answers = dict(given)
    for name in _QUESTIONS if asking else ():
        if name not in answers and _applies(name, answers):
            answer = _ask(name)
            if answer:
                answers[name] = [Path(answer)] if name == "weights" else answer
    return answers


def _applies(name: str, answers: dict[str, Any]) -> bool:
    """True if a question makes sense after the answers so far."""
    if name == "weights":
        return not Path(answers["model"]).is_file()
    return name != "normalize" or not {"mean", "std"} & set(answers)


def _ask(name: str) -> str:
    defaults = {"attacks": UserModelConfig.attacks, "eps": UserModelConfig.eps}
    default = None if name in _NEEDED else defaults.get(name, "")
    answer: str = typer.prompt(_QUESTIONS[name], default=default, show_default=bool(default))
    return answer.strip()


def _asked_service() -> CiService:
    return CiService(typer.prompt("CI file", default=CiService.github, type=CiService))


def _has_terminal() -> bool:
    """True if the user can answer questions."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _from_here(path: str) -> str:
    """A path inside this directory as a relative one, because CI has the project in another place."""
    here = Path.cwd()
    inside = Path(path).is_absolute() and Path(path).is_relative_to(here)
    return str(Path(path).relative_to(here)) if inside else path


def _write(
    first: FirstBaseline, rules: ProjectFile, out: Path, service: CiService, place: Path | None
) -> None:
    from robustbench_tin.benchmarks.gate.ci_templates import GITLAB_INCLUDED, workflow
    from robustbench_tin.benchmarks.gate.project_files import ProjectFile, installed_with

    check = f"robust-tin check {first.source.command}"
    files = [rules]
    if place is not None:
        files.append(ProjectFile(place, workflow(service, check, installed_with(), place)))
    first.baseline.write(out)
    for file in files:
        file.write()
    tell_baseline(first.baseline, out, first.candidate.notes, "give --weights once for each training")
    for path in (out, *(file.path for file in files)):
        say(f"Written: {path}")
    if place == GITLAB_INCLUDED:
        say(f"Add to .gitlab-ci.yml: include: [{{local: {place}}}]")
    for outside in _outside(first.source.model, first.source.data, first.source.weights):
        say(f"Warning: {outside} lies outside this directory, so CI does not have it.")
    print("Next, check the model after each change:")
    say(f"  {check}")
    print("After an improvement, save it as the new baseline:")
    say(f"  robust-tin baseline {first.candidate.command} --out {out}")


def _outside(*places: str | Path | None) -> list[str]:
    """The paths that lie outside this directory, so that a copy of it lacks them."""
    here = Path.cwd().resolve()
    parts = [part for place in places if place is not None for part in str(place).split(":")]
    there = [part for part in parts if Path(part).exists()]
    return [part for part in there if not Path(part).resolve().is_relative_to(here)]
