"""A report for people: one table, each reason once, the changes, and possible causes."""

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
    """The table of a report: one row for each shown measurement, with the notes below it."""
    rows = tuple(_row(result) for result in report.shown)
    return Table(
        title=_title(report),
        columns=(
            "model",
            "defense",
            "measurement",
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
    """The table and its notes as plain text, wide enough that no cell is cut."""
    from rich.console import Console

    from robustbench_tin.benchmarks.reporting.terminal import TerminalTable

    shown = table(report)
    file = io.StringIO()
    if shown.rows:
        console = Console(file=file, width=160, color_system=None)
        console.print(TerminalTable(replace(shown, title="", notes=())))
    return "\n".join([printable(shown.title), file.getvalue().rstrip(), "", *map(printable, shown.notes)])


def notes(report: CheckReport) -> list[str]:
    """The notes below the table, one line each: reasons, comparisons, warnings, causes and the summary."""
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
    lines += [f"Possible cause: {cause}." for cause in report.hints]
    lines += [f"To make this the new baseline: {report.update}"] if report.update else []
    return [*lines, report.summary]


def _title(report: CheckReport) -> str:
    beside = f"against {report.baseline}" if report.baseline else "against floors"
    level = f", false-alarm rate at most {report.level:.0%}" if report.baseline else ""
    return f"Robustness of {report.candidate} {beside}: {counted(report.images, 'image')}{level}"


def _unmoved(report: CheckReport) -> str:
    """A note on the number of measurements without a row."""
    count = len(report.results) - len(report.shown)
    total = counted(len(report.results), "measurement")
    return f"{count:,} of {total} did not get worse: not shown."


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
