"""Baseline files of the gate, and the rules that a check is given."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from pydantic import ValidationError
from reader_runs import make_run

from robustbench_tin.benchmarks.gate.baseline import Baseline, make_baseline
from robustbench_tin.benchmarks.gate.baseline_io import read_baseline
from robustbench_tin.benchmarks.gate.candidate import Candidate, from_run
from robustbench_tin.benchmarks.gate.check import check
from robustbench_tin.benchmarks.gate.ci_reports import FORMATS
from robustbench_tin.benchmarks.gate.rules_file import read_rules
from robustbench_tin.benchmarks.gate.text_report import plain
from robustbench_tin.errors import RobustTinError

_RULES = """baseline = "baseline.json"
level = 0.01
min = {"pgd*@0.03" = 0.2, "*/none/clean" = 0.5}

[max-drop]
"*" = 0.02
"timm*/none/pgd*@0.03" = 0.1
"""


@cache
def seeds() -> list[dict[str, bytes]]:
    """A baseline of two seeds with rules of every kind."""
    return [{"baseline.json": make_baseline([_subject()]).text().encode(), "rules.toml": _RULES.encode()}]


def read(folder: Path) -> None:
    """As ``check --baseline FILE --rules FILE`` does; a changed baseline also with a digest that fits."""
    refused: RobustTinError | None = None
    file = folder / "baseline.json"
    for attempt in (_check, _resealed):
        try:
            attempt(file)
        except RobustTinError as error:
            refused = refused or error
    if refused is not None:
        raise refused


def _check(file: Path) -> None:
    rules = read_rules(file.with_name("rules.toml"))
    report = check(_subject(), file, rules)
    plain(report)
    for render in FORMATS.values():
        render(report)


def _resealed(file: Path) -> None:
    read_failed = False
    try:
        read_baseline(file)
    except RobustTinError:
        read_failed = True
    if not read_failed or not file.is_file():
        return
    with suppress(ValidationError, RecursionError):
        known = Baseline.model_validate_json(file.read_bytes())
        known.model_copy(update={"digest": known.content_digest}).write(file)
        _check(file)


@cache
def _subject() -> Candidate:
    with tempfile.TemporaryDirectory() as place:
        return from_run(make_run(Path(place) / "run").path)
