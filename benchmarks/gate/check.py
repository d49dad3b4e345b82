"""The check: compare a candidate with its baseline by the rules, and return a report."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from robustbench_tin.benchmarks.gate.baseline import Baseline
from robustbench_tin.benchmarks.gate.baseline_io import read_baseline
from robustbench_tin.benchmarks.gate.candidate import Candidate
from robustbench_tin.benchmarks.gate.comparison import check_floors, compare
from robustbench_tin.benchmarks.gate.comparison_mode import ComparisonMode, choose_mode
from robustbench_tin.benchmarks.gate.hints import facts, hints
from robustbench_tin.benchmarks.gate.power_warnings import blind_spots, low_power, weak_spots
from robustbench_tin.benchmarks.gate.result import CheckReport, CheckResult, CheckStatus
from robustbench_tin.benchmarks.gate.rules import Rules
from robustbench_tin.benchmarks.gate.untrained import fail_untrained
from robustbench_tin.errors import InvalidSettingError

DEFAULT_FILE = "robustness-baseline.json"


def check(
    candidate: Candidate,
    baseline: str | Path | None,
    rules: Rules | None = None,
    *,
    forced_mode: ComparisonMode | None = None,
    part: bool = False,
) -> CheckReport:
    """Compare a candidate with a baseline file, or only with minimum accuracies (floors).

    Args:
        candidate: the models to check.
        baseline: path of the baseline file; None for the file that the rules name, or for floors only.
        rules: tolerances, floors and level; None for the defaults.
        forced_mode: the kind of comparison; None to decide by the weights.
        part: whether the rules are for several candidates. A rule that matches no measurement of this one is
            then ignored instead of an error.

    Raises:
        RobustTinError: if the baseline cannot be read, a rule matches no measurement, or there is neither a
            baseline nor a floor.
    """
    rules = rules or Rules()
    if part:
        rules = rules.of((model.model, model.defense, figure.key) for model, figure in candidate.figures)
    path = baseline if baseline is not None else rules.baseline
    if path is None and not rules.floors:
        raise InvalidSettingError(
            f"nothing to compare '{candidate.name}' with; give --baseline FILE (robust-tin baseline makes"
            " one) or --min pgd@0.03=0.20"
        )
    images = next(figure.record.n for _, figure in candidate.figures)
    if path is None:
        if rules.require_power:
            raise InvalidSettingError(
                "require-power got no baseline, and floors have no significance test; give --baseline FILE,"
                " or leave the option out"
            )
        results = _unless_allowed(check_floors(candidate, rules), candidate, rules)
        _require_use(rules, results)
        return CheckReport(
            candidate.name, None, images, rules.level, tuple(results), warnings=candidate.notes
        )
    return check_against(candidate, read_baseline(path), Path(path), rules, forced_mode)


def check_against(
    candidate: Candidate, known: Baseline, path: Path, rules: Rules, forced_mode: ComparisonMode | None
) -> CheckReport:
    """Compare a candidate with a baseline.

    Args:
        candidate: the models to check.
        known: the baseline.
        path: path of its file, for the report.
        rules: tolerances, floors and level.
        forced_mode: the kind of comparison; None to decide by the weights.

    Raises:
        InvalidSettingError: if a rule matches no measurement.
    """
    told: list[str] = []
    own = _as_only_entry(known, candidate)
    if own is not candidate:
        told.append(
            f"{candidate.name} is compared with the only model of the baseline, {known.entries[0].label}"
        )
        candidate = own
    groups = candidate.groups
    modes = {
        (entry.model, entry.defense): choose_mode(entry, groups[entry.model, entry.defense], forced_mode)
        for entry in known.entries
        if (entry.model, entry.defense) in groups
    }
    results = _unless_allowed(compare(known, candidate, rules, modes), candidate, rules)
    _require_use(rules, results)
    findings = low_power(results, rules.level) if rules.require_power else ()
    blind = [] if findings else blind_spots(results, rules.level)
    told += facts(known, candidate, modes, rules.assumed_spread)
    return CheckReport(
        candidate=candidate.name,
        baseline=str(path),
        images=known.images,
        level=rules.level,
        results=tuple(results),
        facts=tuple(told),
        warnings=(*candidate.notes, *blind, *weak_spots(known)),
        hints=tuple(hints(known, candidate, modes, results)),
        update=_update(candidate, path, results),
        findings=findings,
    )


def _unless_allowed(results: list[CheckResult], candidate: Candidate, rules: Rules) -> list[CheckResult]:
    return results if rules.allow_untrained else fail_untrained(results, candidate)


def _as_only_entry(known: Baseline, candidate: Candidate) -> Candidate:
    """Match a user's own model with a baseline of one model, even if their names differ."""
    names = {(entry.model, entry.defense) for entry in known.entries}
    if not candidate.own or len(names) > 1 or names & set(candidate.groups):
        return candidate
    entry = known.entries[0]
    models = (replace(model, model=entry.model, defense=entry.defense) for model in candidate.models)
    return replace(candidate, models=tuple(models))


def _require_use(rules: Rules, results: list[CheckResult]) -> None:
    """Refuse rules that match no measurement, so that a mistyped floor does not look satisfied."""
    norms = {result.key.norm for result in results}
    if len(norms) == 1:
        rules.require_budgets(*norms)
    idle = rules.idle((result.model, result.defense, result.key) for result in results)
    if idle:
        known = list(dict.fromkeys(f"{f.model}/{f.defense}/{f.key.label}" for f in results))
        raise InvalidSettingError(
            f"rule '{idle[0].text}' matches no measurement; expected one of: {', '.join(known[:12])}"
            f"{', …' if len(known) > 12 else ''}"
        )


def _update(candidate: Candidate, path: Path, results: list[CheckResult]) -> str:
    """The command that makes a baseline of the candidate; empty if the baseline would not change."""
    moved = any(result.status in (CheckStatus.better, CheckStatus.new) for result in results)
    return f"robust-tin baseline {candidate.command} --out {shlex.quote(str(path))}" if moved else ""
