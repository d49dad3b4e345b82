"""A report as a person reads it: one table, each reason once, what changed, where to look."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.benchmarks.gate.comparison_mode import ComparisonMode
from robustbench_tin.benchmarks.gate.result import CheckReport, CheckResult, grouped
from robustbench_tin.benchmarks.reporting.figure import UNCHECKED, with_change
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.text import counted, printable

_TESTS = {ComparisonMode.same_weights: "same images", ComparisonMode.retrained: "re-training", None: "–"}


def table(report: CheckReport) -> Table:
    """Every measure in a row, or each that moved; below them why, what changed, and where to look."""
    rows = tuple(_row(result) for result in report.shown)
    return Table(
        title=_title(report),
        columns=(
            "model",
            "defense",
            "measure",
            "test",
            "baseline %",
            "now %",
            "may lose",
            "floor %",
            "p",
            "status",
        ),
        rows=rows,
        label_columns=4,
        notes=tuple(notes(report)),
    )


def plain(report: CheckReport) -> str:
    """The table and what stands below it as plain text, wide enough that nothing is cut."""
    from rich.console import Console

    from robustbench_tin.benchmarks.reporting.terminal import TerminalTable

    shown = table(report)
    file = io.StringIO()
    if shown.rows:
        console = Console(file=file, width=160, color_system=None)
        console.print(TerminalTable(replace(shown, title="", notes=())))
    return "\n".join([printable(shown.title), file.getvalue().rstrip(), "", *map(printable, shown.notes)])


def notes(report: CheckReport) -> list[str]:
    """What stands below the table, a line each."""
    lines = [_unmoved(report)] if report.only_moved else []
    lines += [
        f"{'! ' if any(each.status.grave for each in found) else ''}{reason} ({_measures(found)})"
        for reason, found in grouped(report.shown).items()
    ]
    lines += [
        f"{UNCHECKED} {Trust.unchecked}: {reason} ({_measures(found)})"
        for reason, found in grouped(report.shown, "unchecked").items()
    ]
    lines += [f"! {finding.text}" for finding in report.findings]
    lines += [f"Compared: {fact}." for fact in report.facts]
    lines += [f"Warning: {warning}." for warning in report.warnings]
    lines += [f"Look here: {cause}." for cause in report.hints]
    lines += [f"To keep this as the new baseline: {report.update}"] if report.update else []
    return [*lines, report.summary]


def _title(report: CheckReport) -> str:
    beside = f"against {report.baseline}" if report.baseline else "against floors"
    level = (
        f", at most {report.level:.0%} of tables without a true drop fail by chance"
        if report.baseline
        else ""
    )
    return f"Robustness of {report.candidate} {beside}: {counted(report.images, 'image')}{level}"


def _unmoved(report: CheckReport) -> str:
    """How many measures have no row."""
    count = len(report.results) - len(report.shown)
    return f"{count:,} of {counted(len(report.results), 'measure')} did not move: no row above."


def _row(result: CheckResult) -> tuple[str, ...]:
    return (
        result.model,
        result.defense,
        result.key.label if result.key.norm == "linf" else f"{result.key.label} {result.key.norm}",
        _TESTS[result.mode],
        _percent(result.before),
        with_change(
            _percent(result.now) + (UNCHECKED if result.unchecked else ""),
            None if result.drop is None else 100 * result.drop,
        ),
        f"{100 * result.tolerance:g}",
        _percent(result.floor),
        "–" if result.chance is None else f"{result.chance:.2g}",
        result.status.value.upper() if result.status.fails else result.status.value,
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _measures(results: Sequence[CheckResult]) -> str:
    shown = "; ".join(result.label for result in results[:4])
    return shown if len(results) <= 4 else f"{shown}; and {len(results) - 4} more"
