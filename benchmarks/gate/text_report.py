"""A report as a person reads it: one table, each reason once, what changed, where to look."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.benchmarks.gate.comparison_mode import Kind
from robustbench_tin.benchmarks.gate.result import Finding, Report, grouped
from robustbench_tin.benchmarks.reporting.results_table import UNCHECKED, Table, with_change
from robustbench_tin.text import printable

_TESTS = {Kind.same_weights: "same images", Kind.retrained: "re-training", None: "–"}


def table(report: Report) -> Table:
    """Every measure in a row; below them why, what changed, and where to look."""
    rows = tuple(_row(finding) for finding in report.findings)
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
            "verdict",
        ),
        rows=rows,
        label_columns=4,
        notes=tuple(notes(report)),
    )


def plain(report: Report) -> str:
    """The table and what stands below it as plain text, wide enough that nothing is cut."""
    from rich.console import Console

    shown = table(report)
    file = io.StringIO()
    Console(file=file, width=160, color_system=None).print(replace(shown, title="", notes=()).rich())
    return "\n".join([printable(shown.title), file.getvalue().rstrip(), "", *map(printable, shown.notes)])


def notes(report: Report) -> list[str]:
    """What stands below the table, a line each."""
    lines = [
        f"{'! ' if any(each.verdict.grave for each in found) else ''}{reason} ({_measures(found)})"
        for reason, found in grouped(report.findings).items()
    ]
    lines += [
        f"{UNCHECKED} {Trust.unchecked}: {reason} ({_measures(found)})"
        for reason, found in grouped(report.findings, "unchecked").items()
    ]
    lines += [f"Compared: {fact}." for fact in report.facts]
    lines += [f"Warning: {warning}." for warning in report.warnings]
    lines += [f"Look here: {cause}." for cause in report.causes]
    lines += [f"To keep this as the new baseline: {report.update}"] if report.update else []
    return [*lines, report.summary]


def _title(report: Report) -> str:
    beside = f"against {report.baseline}" if report.baseline else "against floors"
    level = (
        f", at most {report.level:.0%} of tables without a true drop fail by chance"
        if report.baseline
        else ""
    )
    return f"Robustness of {report.subject} {beside}: {report.images:,} images{level}"


def _row(finding: Finding) -> tuple[str, ...]:
    return (
        finding.model,
        finding.defense,
        finding.key.label if finding.key.norm == "linf" else f"{finding.key.label} {finding.key.norm}",
        _TESTS[finding.kind],
        _percent(finding.before),
        with_change(
            _percent(finding.now) + (UNCHECKED if finding.unchecked else ""),
            None if finding.drop is None else 100 * finding.drop,
        ),
        f"{100 * finding.tolerance:g}",
        _percent(finding.floor),
        "–" if finding.chance is None else f"{finding.chance:.2g}",
        finding.verdict.value.upper() if finding.verdict.fails else finding.verdict.value,
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _measures(findings: Sequence[Finding]) -> str:
    shown = "; ".join(finding.label for finding in findings[:4])
    return shown if len(findings) <= 4 else f"{shown}; and {len(findings) - 4} more"
