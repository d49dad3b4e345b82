"""Compare a candidate with its baseline: every measurement gets a verdict, and none is skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from robustbench_tin.benchmarks.gate.baseline import Baseline, Entry, Measure
from robustbench_tin.benchmarks.gate.candidate import (
    Candidate,
    CandidateMeasurement,
    CandidateModel,
    MeasurementKey,
)
from robustbench_tin.benchmarks.gate.comparison_mode import ChosenMode, ComparisonMode
from robustbench_tin.benchmarks.gate.result import CheckResult, CheckStatus
from robustbench_tin.benchmarks.gate.rules import Rules
from robustbench_tin.benchmarks.gate.trust_comparison import belief
from robustbench_tin.benchmarks.gate.verdict_texts import percent, points, why_unknown, why_worse
from robustbench_tin.benchmarks.runs.same_measurement import MeasuredImages
from robustbench_tin.benchmarks.statistics.chances import Chances, holm
from robustbench_tin.benchmarks.statistics.paired import Changes, image_variance
from robustbench_tin.benchmarks.statistics.spread import Spread
from robustbench_tin.benchmarks.trust.measured import needs_trust

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Aligned:
    """A measurement of the baseline, the candidate's figures for it, and the p-values.

    Attributes:
        result: the result so far.
        figures: the candidate's figures of the judged trainings.
        measure: the baseline's measurement; None if only floors are checked.
        chances: uncorrected p-values of a drop and a rise; None if there is no test.
    """

    result: CheckResult
    figures: tuple[CandidateMeasurement, ...]
    measure: Measure | None
    chances: Chances | None = None


def compare(
    baseline: Baseline, candidate: Candidate, rules: Rules, modes: Mapping[tuple[str, str], ChosenMode]
) -> list[CheckResult]:
    """Judge every measurement of the baseline and of the candidate.

    Args:
        baseline: the baseline.
        candidate: the models to check.
        rules: tolerances, floors and the level.
        modes: the kind of comparison for each backbone and defense that both have.
    """
    found: list[CheckResult | Aligned] = []
    groups = candidate.groups
    for entry in baseline.entries:
        models = groups.pop((entry.model, entry.defense), [])
        if not models:
            found += [
                _incomparable(entry, measure, "the candidate has no such model") for measure in entry.measures
            ]
            continue
        mode = modes[entry.model, entry.defense]
        found += [
            _align(baseline, entry, measure, mode, models, rules.assumed_spread) for measure in entry.measures
        ]
        found += _new(models, [measure.key for measure in entry.measures])
    for models in groups.values():
        found += _new(models, [])
    return _judge(found, rules)


def check_floors(candidate: Candidate, rules: Rules) -> list[CheckResult]:
    """Judge a candidate without a baseline: each of its trainings must reach the floors.

    Args:
        candidate: the models to check.
        rules: the floors.
    """
    found: list[CheckResult | Aligned] = []
    for models in candidate.groups.values():
        keys = dict.fromkeys(figure.key for model in models for figure in model.figures)
        for key in keys:
            figures = [model.figure(key) for model in models]
            result = CheckResult(models[0].model, models[0].defense, key, CheckStatus.same)
            present = tuple(figure for figure in figures if figure is not None)
            problem = _problem(present, len(models))
            if problem is not None:
                found.append(replace(result, status=CheckStatus.incomparable, reasons=(problem,)))
            else:
                found.append(Aligned(replace(result, now=_mean(present)), present, None))
    return _judge(found, rules)


def _align(
    baseline: Baseline,
    entry: Entry,
    measure: Measure,
    mode: ChosenMode,
    models: Sequence[CandidateModel],
    assumed_spread: float,
) -> CheckResult | Aligned:
    """Align the candidate's figures with a measurement of the baseline, or say why this is impossible."""
    if mode.mode is None:
        return _incomparable(entry, measure, mode.why)
    figures = tuple(figure for model in mode.models if (figure := model.figure(measure.key)) is not None)
    problem = _problem(figures, len(mode.models))
    if not figures:
        problem = f"missing{_instead(measure, models)}"
    problem = problem or _difference(baseline, measure, figures)
    if problem is not None:
        return _incomparable(entry, measure, problem)
    result = CheckResult(
        entry.model, entry.defense, measure.key, CheckStatus.same, mode=mode.mode, now=_mean(figures)
    )
    if mode.mode is ComparisonMode.same_weights:
        hits = figures[0].hits
        assert hits is not None
        changes = Changes.between(measure.hits(baseline.images), hits)
        result = replace(result, before=measure.right[0] / baseline.images, changes=changes)
        return Aligned(result, figures, measure, changes.chances())
    spread = Spread(tuple(measure.right), tuple(figure.right for figure in figures), baseline.images)
    if len(measure.right) == 1:
        outcomes = np.array([figure.hits for figure in figures])
        sampling = image_variance(measure.hits(baseline.images), outcomes)
        spread = replace(spread, assumed=assumed_spread, image_variance=sampling)
    before = sum(measure.right) / len(measure.right) / baseline.images
    result = replace(result, before=before, spread=spread)
    return Aligned(result, figures, measure, spread.chances())


def _problem(figures: Sequence[CandidateMeasurement], trainings: int) -> str | None:
    """Why existing figures are unusable; None if they are usable."""
    failed = [figure.record for figure in figures if figure.hits is None]
    if failed:
        return f"seed {failed[0].seed}: {failed[0].status}"
    if len(figures) < trainings:
        return f"measured for {len(figures)} of {trainings} seeds only"
    return None


def _instead(measure: Measure, models: Sequence[CandidateModel]) -> str:
    """The candidate's measurements with the same attack and other settings, if the measurement is missing."""
    name = measure.attack.partition(":")[0]
    others = {
        figure.key.label if figure.key.norm == measure.norm else f"{figure.key.label} in {figure.key.norm}"
        for model in models
        for figure in model.figures
        if figure.key.attack.partition(":")[0] == name
    }
    if not others:
        return ": the candidate was not measured under this attack"
    return f": the attack settings differ, the candidate has {', '.join(sorted(others))}"


def _difference(baseline: Baseline, measure: Measure, figures: Sequence[CandidateMeasurement]) -> str | None:
    """Why figures of the same name cannot be compared; None if they can."""
    for figure in figures:
        record = figure.record
        problem = MeasuredImages.of(record).difference(baseline.measured_images, "here", "in the baseline")
        if problem is not None:
            return problem
        for key, value in figure.settings.items():
            if measure.settings.get(key) != value:
                return (
                    f"the attack settings differ: {key} {measure.settings.get(key)} in the baseline,"
                    f" {value} here"
                )
        if measure.checked and needs_trust(record) and record.trust is None:
            return "it has no trust checks, and the baseline has; measure it with the trust checks"
    return None


def _new(models: Sequence[CandidateModel], known: Sequence[MeasurementKey]) -> list[CheckResult | Aligned]:
    """Measurements that the baseline does not have; floors apply to them too."""
    keys = dict.fromkeys(
        figure.key for model in models for figure in model.figures if figure.key not in known
    )
    found: list[CheckResult | Aligned] = []
    for key in keys:
        figures = tuple(figure for model in models if (figure := model.figure(key)) is not None)
        result = CheckResult(
            models[0].model, models[0].defense, key, CheckStatus.new, ("not in the baseline",)
        )
        problem = _problem(figures, len(models))
        if problem is None:
            found.append(Aligned(replace(result, now=_mean(figures)), figures, None))
        else:
            found.append(replace(result, reasons=(f"not in the baseline; {problem}",)))
    return found


def _judge(found: Sequence[CheckResult | Aligned], rules: Rules) -> list[CheckResult]:
    tested = [item for item in found if isinstance(item, Aligned) and item.chances is not None]
    drops = holm([item.chances.of_drop for item in tested if item.chances])
    rises = holm([item.chances.of_rise for item in tested if item.chances])
    corrected = {id(item): Chances(*pair) for item, *pair in zip(tested, drops, rises, strict=True)}
    results = []
    for item in found:
        result = item.result if isinstance(item, Aligned) else item
        tolerance = rules.tolerance(result.model, result.defense, result.key)
        floor = rules.floor(result.model, result.defense, result.key)
        result = replace(result, tolerance=tolerance, floor=floor)
        if isinstance(item, Aligned):
            chances = corrected.get(id(item))
            result = _verdict(replace(item, result=result, chances=chances), rules.level)
        elif floor is not None and result.status is CheckStatus.new:
            result = replace(
                result,
                status=CheckStatus.incomparable,
                reasons=(*result.reasons, f"a rule requires at least {percent(floor)}"),
            )
        results.append(result)
    return _without_doubtful_rises(results)


def _without_doubtful_rises(results: Sequence[CheckResult]) -> list[CheckResult]:
    """Do not count a figure as better if another figure of the same model is suspicious."""
    doubted = {
        (result.model, result.defense) for result in results if result.status is CheckStatus.suspicious
    }
    reason = "a rise, but other figures of this model are unreliable"
    return [
        replace(result, status=CheckStatus.suspicious, reasons=(*result.reasons, reason))
        if result.status is CheckStatus.better and (result.model, result.defense) in doubted
        else result
        for result in results
    ]


def _verdict(item: Aligned, level: float) -> CheckResult:
    """The verdict on one measurement, with all its reasons."""
    result, chances = item.result, item.chances
    statuses, reasons = [result.status], list(result.reasons)
    drop = result.drop
    # Avoid rounding errors if a difference equals the tolerance exactly.
    allowed = result.tolerance + _ROUNDING
    if drop is not None and chances is not None:
        if drop > allowed and chances.of_drop <= level:
            statuses.append(CheckStatus.worse)
            reasons.append(why_worse(result, drop, chances.of_drop, level))
        elif -drop > allowed and chances.of_rise <= level:
            statuses.append(CheckStatus.better)
            reasons.append(f"a rise of {points(-drop)}, beyond chance (p = {chances.of_rise:.2g})")
        elif drop > allowed and result.spread is not None and not result.spread.known:
            statuses.append(CheckStatus.incomparable)
            reasons.append(why_unknown(result, result.spread, drop))
    if result.floor is not None:
        lowest = min(figure.right / figure.record.n for figure in item.figures)
        if lowest < result.floor:
            statuses.append(CheckStatus.below)
            reasons.append(f"{percent(lowest)}, but a rule requires at least {percent(result.floor)}")
    asked = item.measure is not None or result.floor is not None
    believed = belief(item.figures, item.measure, asked=asked, rises=CheckStatus.better in statuses)
    if believed.reasons:
        statuses.append(CheckStatus.suspicious)
        reasons += believed.reasons
    elif CheckStatus.better in statuses and any(figure.doubts for figure in item.figures):
        statuses.remove(CheckStatus.better)
        reasons.append("but it is as unreliable as in the baseline, so it does not count")
    chosen = min(statuses, key=list(CheckStatus).index)
    return replace(
        result,
        status=chosen,
        reasons=tuple(reasons),
        chance=None if chances is None else chances.of_drop,
        doubts=believed.doubts,
        unchecked=believed.unchecked,
    )


def _incomparable(entry: Entry, measure: Measure, reason: str) -> CheckResult:
    return CheckResult(entry.model, entry.defense, measure.key, CheckStatus.incomparable, (reason,))


def _mean(figures: Sequence[CandidateMeasurement]) -> float:
    return sum(figure.right / figure.record.n for figure in figures) / len(figures)
