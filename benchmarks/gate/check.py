"""The check: a subject, its baseline and the rules in, a report out."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from robustbench_tin.benchmarks.gate.baseline import Baseline
from robustbench_tin.benchmarks.gate.baseline_io import read_baseline
from robustbench_tin.benchmarks.gate.candidate import Subject
from robustbench_tin.benchmarks.gate.comparison import check_floors, compare
from robustbench_tin.benchmarks.gate.comparison_mode import Kind, ask
from robustbench_tin.benchmarks.gate.hints import causes, facts
from robustbench_tin.benchmarks.gate.power_warnings import blind_spots, weak_spots
from robustbench_tin.benchmarks.gate.result import Finding, Report, Verdict
from robustbench_tin.benchmarks.gate.rules import Rules
from robustbench_tin.errors import InvalidSettingError

DEFAULT_FILE = "robustness-baseline.json"


def check(
    subject: Subject,
    baseline: str | Path | None,
    rules: Rules | None = None,
    *,
    said: Kind | None = None,
    part: bool = False,
) -> Report:
    """Compare a subject with a baseline file, or with floors alone.

    Args:
        subject: what is checked.
        baseline: the file; None: the one that the rules name, else floors alone.
        rules: tolerances, floors and level; None: the defaults.
        said: which question it is; None: the weights tell.
        part: whether the subject is one of several that the rules are for: what fits none of its measures is
            another's then, and no mistake.

    Raises:
        RobustTinError: where the baseline cannot be read, a rule fits no measure, or nothing is asked.
    """
    rules = rules or Rules()
    if part:
        rules = rules.of((model.model, model.defense, figure.key) for model, figure in subject.figures)
    path = baseline if baseline is not None else rules.baseline
    if path is None and not rules.floors:
        raise InvalidSettingError(
            f"nothing to check '{subject.name}' against; give --baseline FILE (robust-tin baseline makes"
            " one) or --min pgd@0.03=0.20"
        )
    images = next(figure.record.n for _, figure in subject.figures)
    if path is None:
        findings = check_floors(subject, rules)
        _require_use(rules, findings)
        return Report(subject.name, None, images, rules.level, tuple(findings), warnings=subject.notes)
    return _compared(subject, read_baseline(path), Path(path), rules, said)


def _compared(subject: Subject, known: Baseline, path: Path, rules: Rules, said: Kind | None) -> Report:
    told: list[str] = []
    own = _as_only_entry(known, subject)
    if own is not subject:
        told.append(
            f"{subject.name} is compared with the only model of the baseline, {known.entries[0].label}"
        )
        subject = own
    groups = subject.groups
    questions = {
        (entry.model, entry.defense): ask(entry, groups[entry.model, entry.defense], said)
        for entry in known.entries
        if (entry.model, entry.defense) in groups
    }
    findings = compare(known, subject, rules, questions)
    _require_use(rules, findings)
    told += facts(known, subject, questions)
    return Report(
        subject=subject.name,
        baseline=str(path),
        images=known.images,
        level=rules.level,
        findings=tuple(findings),
        facts=tuple(told),
        warnings=(*subject.notes, *blind_spots(findings, rules.level), *weak_spots(known)),
        causes=tuple(causes(known, subject, questions, findings)),
        update=_update(subject, path, findings),
    )


def _as_only_entry(known: Baseline, subject: Subject) -> Subject:
    """A model of the user's own beside a baseline of one: whatever they are called, these two are meant."""
    names = {(entry.model, entry.defense) for entry in known.entries}
    if not subject.own or len(names) > 1 or names & set(subject.groups):
        return subject
    entry = known.entries[0]
    models = (replace(model, model=entry.model, defense=entry.defense) for model in subject.models)
    return replace(subject, models=tuple(models))


def _require_use(rules: Rules, findings: list[Finding]) -> None:
    """Refuse rules that guard nothing: a mistyped floor must not look like one that was kept."""
    norms = {finding.key.norm for finding in findings}
    if len(norms) == 1:
        rules.require_budgets(*norms)
    idle = rules.idle((finding.model, finding.defense, finding.key) for finding in findings)
    if idle:
        known = list(dict.fromkeys(f"{f.model}/{f.defense}/{f.key.label}" for f in findings))
        raise InvalidSettingError(
            f"rule '{idle[0].text}' fits no measure; there are: {', '.join(known[:12])}"
            f"{', …' if len(known) > 12 else ''}"
        )


def _update(subject: Subject, path: Path, findings: list[Finding]) -> str:
    """The command for a baseline of what was checked; nothing where there would be nothing new in it."""
    moved = any(finding.verdict in (Verdict.better, Verdict.new) for finding in findings)
    return f"robust-tin baseline {subject.command} --out {shlex.quote(str(path))}" if moved else ""
