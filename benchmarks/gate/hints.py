"""Where to look when robustness got worse: what changed since the baseline, and what the figures point at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robustbench_tin.benchmarks.gate.baseline import Baseline, Entry
from robustbench_tin.benchmarks.gate.candidate import Candidate
from robustbench_tin.benchmarks.gate.comparison_mode import ChosenMode, ComparisonMode
from robustbench_tin.benchmarks.gate.result import CheckResult, CheckStatus
from robustbench_tin.benchmarks.gate.rules import ASSUMED_SPREAD
from robustbench_tin.benchmarks.gate.verdict_texts import points
from robustbench_tin.benchmarks.runs.records import CLEAN

Questions = Mapping[tuple[str, str], ChosenMode]


def facts(
    baseline: Baseline, candidate: Candidate, modes: Questions, assumed_spread: float = ASSUMED_SPREAD
) -> list[str]:
    """Which question was asked of what, and what differs from the baseline, a sentence each."""
    lines = []
    for entry in baseline.entries:
        mode = modes.get((entry.model, entry.defense))
        if mode is not None and mode.mode is not None:
            lines.append(f"{entry.label}: {_asked(entry, mode, assumed_spread)}")
        if mode is not None and mode.left_out:
            lines.append(f"{entry.label}: {mode.left_out}")
    changed = changed_settings(baseline, candidate)
    if changed:
        lines.append(f"the plan differs from the baseline's: {'; '.join(changed)}")
    if retrained_on_other_data(baseline, candidate):
        lines.append("the training images, labels or boxes are not the baseline's; the measured images are")
    if candidate.versions != baseline.versions:
        lines.append(f"the baseline was computed by {baseline.versions}; this by {candidate.versions}")
    return lines


def hints(
    baseline: Baseline, candidate: Candidate, modes: Questions, results: Sequence[CheckResult]
) -> list[str]:
    """Where to look, most telling first; nothing where nothing failed."""
    found: list[str] = []
    for entry in baseline.entries:
        mine = [
            result for result in results if (result.model, result.defense) == (entry.model, entry.defense)
        ]
        mode = modes.get((entry.model, entry.defense))
        if mode is None or mode.mode is None:
            continue
        worse = [result for result in mine if result.status is CheckStatus.worse]
        if any(result.doubts for result in mine):
            found.append(
                "attacks may fail for want of a gradient, not for want of an adversarial image: look at"
                " changed activations, rounding, argmax, detach and randomness; square needs no gradient"
            )
        if not worse:
            continue
        clean_fell = any(result.key.attack == CLEAN for result in worse)
        if mode.mode is ComparisonMode.same_weights:
            found.append(_around_weights(entry, mode, clean_fell=clean_fell))
        else:
            found.append(_in_training(baseline, candidate, clean_fell=clean_fell))
    return list(dict.fromkeys(found))


def changed_settings(baseline: Baseline, candidate: Candidate) -> list[str]:
    """Settings that both sides have, and that differ; data are known by their fingerprints."""
    return [
        f"{key} was {baseline.settings[key]}, is {value}"
        for key, value in sorted(candidate.settings.items())
        if key in baseline.settings and baseline.settings[key] != value and key != "data_fingerprint"
    ]


def retrained_on_other_data(baseline: Baseline, candidate: Candidate) -> bool:
    """Whether what was trained on differs, and what was measured on does not."""
    return any(
        bool(baseline.measured_on)
        and figure.record.measured_on == baseline.measured_on
        and figure.record.data_fingerprint != baseline.data_fingerprint
        for _, figure in candidate.figures
    )


def _asked(entry: Entry, mode: ChosenMode, assumed_spread: float) -> str:
    if mode.mode is ComparisonMode.same_weights:
        return (
            f"same weights, changed pipeline ({mode.why}): compared with seed {entry.seeds[0]} image by"
            " image, McNemar's exact test"
        )
    seeds = (
        f"the spread of {len(entry.seeds)} seeds"
        if len(entry.seeds) > 1
        else f"one seed, and seeds are assumed to deviate by {points(assumed_spread)} (--assumed-spread)"
    )
    return f"a re-training ({mode.why}): judged against {seeds}"


def _around_weights(entry: Entry, mode: ChosenMode, *, clean_fell: bool) -> str:
    if mode.models[0].weights != entry.weights[0]:
        return (
            f"the weights ({mode.models[0].weights}) are not the baseline's ({entry.weights[0]}): look"
            " at what changed them (conversion, quantisation, pruning, noise, further training)"
        )
    if clean_fell:
        return (
            "the weights are the baseline's and clean accuracy fell with them: look at what happens to images"
            " before the network (normalisation, value range, channel order, resizing) and at changed layers"
        )
    return (
        "the weights are the baseline's and clean accuracy held: look at what a defense does at test time,"
        " at changed activations, and at the attacks' versions"
    )


def _in_training(baseline: Baseline, candidate: Candidate, *, clean_fell: bool) -> str:
    fell = "clean accuracy fell, too" if clean_fell else "clean accuracy held"
    if retrained_on_other_data(baseline, candidate):
        return (
            f"the training images, labels or boxes have changed, and {fell}: look at labels and files first"
        )
    if changed_settings(baseline, candidate):
        return f"the plan has changed, and {fell}: undo its changes one by one"
    return (
        f"neither plan nor data have changed, and {fell}: look at the code of training, of the backbone and"
        " of the defense, and at the versions"
    )
