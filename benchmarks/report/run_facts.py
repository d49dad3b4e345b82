"""Facts of a run: data, threat model, versions, fingerprint, plan, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_tin.benchmarks.charts.eps_chart import NORMS
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.report.command import FILE, repeat_command
from robustbench_tin.specs import eps_text, short_numbers
from robustbench_tin.text import counted

_BRIEF = 400


@dataclass(frozen=True)
class RunFacts:
    """One run.

    Attributes:
        name: empty if only one run is shown.
        summary: data and threat model in one line.
        state: number of missing measurements; empty if the run is finished.
        command: the command that repeats it.
        has_files: whether the command contains files that the run knows only by digest.
        facts: the most important facts, by name.
        plan: every setting, by name.
    """

    name: str
    summary: str
    state: str
    command: str
    has_files: bool
    facts: Sequence[tuple[str, str]]
    plan: Sequence[tuple[str, str]]


def run_facts(shown: ShownRun) -> RunFacts:
    """The facts of a run."""
    plan = shown.run.plan
    command = repeat_command(shown.run)
    attacks = ", ".join(map(short_numbers, plan.attacks)) or "no attack"
    budgets = ", ".join(eps_text(eps) for eps in plan.attacked_eps)
    threat = f"{attacks} at {NORMS.get(plan.norm, plan.norm)} eps {budgets}" if budgets else "clean only"
    return RunFacts(
        shown.name,
        f"{plan.data}, {counted(plan.classes, 'class', 'classes')}, {counted(plan.eval_images, 'image')};"
        f" {threat}.",
        _state(shown),
        command,
        f" {FILE}" in command,
        [
            ("run directory", shown.run.path.name),
            ("plan fingerprint", plan.fingerprint),
            ("data fingerprint", plan.data_fingerprint),
            *((name, text) for name in ("versions", "device", "search") if (text := _distinct(shown, name))),
        ],
        [(name, _brief(value)) for name, value in plan.model_dump().items()],
    )


def _state(shown: ShownRun) -> str:
    """A sentence on missing measurements; empty if none is missing."""
    plan, records = shown.run.plan, shown.records
    wanted = sum(plan.measures_of(cell) for cell in shown.cells)
    return "" if len(records) >= wanted else f"Not finished: {len(records)} of {wanted} measurements."


def _distinct(shown: ShownRun, name: str) -> str:
    return "; ".join(str(value) for value in shown.records[name].unique() if value)


def _brief(value: Any) -> str:
    """A setting in the form of the plan's file, cut if it is long."""
    if isinstance(value, float):
        return eps_text(value)
    if isinstance(value, list | tuple):
        text = ", ".join(_brief(each) for each in value) or "none"
    else:
        text = "none" if value is None or value == "" else str(value)
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF]} …"
