"""Write a report in the formats of CI services: JUnit XML, SARIF, GitHub annotations, Markdown, JSON."""

from __future__ import annotations

import hashlib
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from robustbench_tin._version import __version__
from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.benchmarks.gate.result import CheckReport, CheckResult, CheckStatus, FindingCode
from robustbench_tin.benchmarks.gate.text_report import notes, table
from robustbench_tin.text import markdown, printable

_RULES = {
    CheckStatus.worse: ("robustness-worse", "Robustness is significantly worse than in the baseline."),
    CheckStatus.below: ("robustness-below-floor", "Robustness is below the minimum that a rule requires."),
    CheckStatus.untrained: ("robustness-untrained", "Clean accuracy is not above chance."),
    CheckStatus.suspicious: ("robustness-suspicious", "A robust accuracy is unreliable."),
    CheckStatus.incomparable: (
        "robustness-not-comparable",
        "A measurement cannot be compared with the baseline.",
    ),
}
_FINDINGS = {
    FindingCode.low_power: (
        "robustness-low-power",
        "There are too few images or seeds to detect a drop as large as the tolerance.",
    ),
}
_FAILURE = ("robustness-check-failed", "The check failed without a result.")
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_json(report: CheckReport) -> str:
    """The complete report as JSON, for programs.

    Accuracies are fractions from 0 to 1; ``exit_code`` is the exit code of the command.
    """
    content = {
        "candidate": report.candidate,
        "baseline": report.baseline,
        "images": report.images,
        "level": report.level,
        "exit_code": report.exit_code,
        "summary": report.summary,
        "failure": report.failure,
        "results": [_as_dict(result) for result in report.results],
        "facts": report.facts,
        "warnings": report.warnings,
        "hints": report.hints,
        "update": report.update,
        "findings": [asdict(finding) for finding in report.findings],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_markdown(report: CheckReport) -> str:
    """The table and its notes as Markdown, for a job's summary page or a comment on a pull request."""
    shown = table(report)
    text = shown.markdown() if shown.rows else "\n\n".join(map(markdown, shown.notes))
    return f"### {markdown(report.summary)}\n" + ("" if report.failure else f"\n{text}\n")


def as_junit(report: CheckReport) -> str:
    """The report as JUnit XML, with one test case for each measurement and each finding.

    A measurement that fails is a failure; a measurement that cannot be compared is an error. A check without
    a result is one test case with an error.
    """
    stopped = bool(report.failure)
    failed = len(report.failed) + len(report.findings)
    broken = len(report.of(CheckStatus.incomparable)) + stopped
    tests = len(report.results) + len(report.findings) + stopped
    counts = {"tests": str(tests), "failures": str(failed), "errors": str(broken)}
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(suites, "testsuite", {"name": "robustness", **counts, "skipped": "0"})
    for result in report.results:
        group = f"{result.model} + {result.defense}"
        names = {"classname": printable(group), "name": printable(result.key.label)}
        case = ET.SubElement(suite, "testcase", names)
        if result.status.fails:
            _problem(case, "failure", result)
        elif result.status is CheckStatus.incomparable:
            _problem(case, "error", result)
        else:
            ET.SubElement(case, "system-out").text = printable(_message(result))
    for finding in report.findings:
        case = ET.SubElement(suite, "testcase", {"classname": "check", "name": finding.code.value})
        message = printable(finding.text)
        ET.SubElement(case, "failure", {"message": message, "type": finding.code.value}).text = message
    if report.failure:
        case = ET.SubElement(suite, "testcase", {"classname": printable(report.candidate), "name": "check"})
        message = printable(report.failure)
        ET.SubElement(case, "error", {"message": message, "type": "no result"}).text = message
    ET.SubElement(suite, "system-out").text = "\n".join(map(printable, notes(report)))
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def as_sarif(report: CheckReport) -> str:
    """The report as SARIF: one result for each finding and each measurement that fails or is not comparable.

    All results point at line 1 of the baseline file.
    """
    results = [
        # GitHub's own fingerprint depends on the line. All results share it, so they need one of their own.
        _result(report, _RULES[result.status][0], result.status.fails, result.label, _message(result))
        for result in report.results
        if result.status in _RULES
    ]
    results += [
        _result(report, _FINDINGS[finding.code][0], True, finding.code.value, finding.text)
        for finding in report.findings
    ]
    if report.failure:
        results.append(_result(report, _FAILURE[0], True, report.candidate, report.failure))
    known = (*_RULES.values(), *_FINDINGS.values(), _FAILURE)
    rules = [{"id": name, "shortDescription": {"text": text}} for name, text in known]
    driver = {"name": "robust-tin", "version": __version__, "rules": rules}
    content = {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _result(report: CheckReport, rule: str, grave: bool, label: str, message: str) -> dict[str, Any]:
    place = os.fsencode(Path(report.baseline or report.candidate).as_posix())
    location = {"artifactLocation": {"uri": quote(place)}, "region": {"startLine": 1}}
    return {
        "ruleId": rule,
        "level": "error" if grave else "warning",
        "message": {"text": printable(f"{label}: {message}")},
        "locations": [{"physicalLocation": location}],
        "partialFingerprints": {"primaryLocationLineHash": _fingerprint(label)},
    }


def as_annotations(report: CheckReport) -> str:
    """Workflow commands, one for each line, that GitHub shows as annotations of a commit.

    Findings and failed measurements are errors, measurements that cannot be compared are warnings, and
    measurements that the trust checks could not judge are notices.
    """
    lines = []
    for result in report.results:
        if result.status in _RULES:
            kind = "error" if result.status.fails else "warning"
            lines.append(_annotation(kind, result.label, _message(result)))
        elif result.unchecked:
            lines.append(_annotation("notice", result.label, _message(result)))
    lines += [_annotation("error", finding.code.value, finding.text) for finding in report.findings]
    lines += [_annotation("warning", "robustness", warning) for warning in report.warnings]
    lines += [_annotation("notice", "possible cause", cause) for cause in report.hints]
    kind = "error" if report.failure else "notice"
    lines.append(_annotation(kind, "robustness", report.summary))
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[CheckReport], str]] = {
    "junit": as_junit,
    "sarif": as_sarif,
    "markdown": as_markdown,
    "json": as_json,
}
"""The file formats of a report, by the names of their options."""


def write_reports(report: CheckReport, files: dict[str, Path | None]) -> None:
    """Write a report to files.

    Args:
        report: the report.
        files: a path for each format of :data:`FORMATS`; a format with None is not written.

    Raises:
        RunError: if a file cannot be written.
    """
    for name, path in files.items():
        if path is not None:
            write_text(path, FORMATS[name](report))


def _problem(case: ET.Element, kind: str, result: CheckResult) -> None:
    """Add a problem to a test case; some services show its attribute, others its text."""
    message = printable(_message(result))
    ET.SubElement(case, kind, {"message": message, "type": result.status.value}).text = message


def _fingerprint(label: str) -> str:
    return hashlib.blake2b(label.encode(errors="backslashreplace"), digest_size=8).hexdigest()


def _message(result: CheckResult) -> str:
    """Status, accuracies and reasons as one text."""
    figures = []
    if result.before is not None:
        figures.append(f"baseline {100 * result.before:.1f} %")
    if result.now is not None:
        figures.append(f"now {100 * result.now:.1f} %")
    said = f"{result.status.value}{': ' if figures else ''}{', '.join(figures)}"
    return "; ".join((said, *result.reasons, *(f"{Trust.unchecked}: {why}" for why in result.unchecked)))


def _as_dict(result: CheckResult) -> dict[str, Any]:
    key = result.key
    named = {
        "model": result.model,
        "defense": result.defense,
        "attack": key.attack,
        "norm": key.norm,
        "eps": key.eps,
        "status": result.status.value,
        "fails": result.status.fails,
    }
    rest = {name: value for name, value in asdict(result).items() if name not in (*named, "key")}
    # The texts are for people; the codes follow for programs.
    for name in ("doubts", "unchecked"):
        rest[name] = [str(reason) for reason in getattr(result, name)]
    codes = [reason.model_dump(mode="json") for reason in (*result.doubts, *result.unchecked)]
    return {**named, **rest, "trust_codes": codes}


def _annotation(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={_escaped(title, inside=True)}::{_escaped(message)}"


def _escaped(text: str, *, inside: bool = False) -> str:
    """Escape a text for GitHub's workflow commands; ``inside`` a property, separators are escaped too."""
    text = printable(text).replace("%", "%25")
    return text.replace(":", "%3A").replace(",", "%2C") if inside else text
