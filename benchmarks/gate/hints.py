"""Possible causes of a worse robustness: changes since the baseline, and hints from the figures."""

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
    """The kinds of comparison and the differences from the baseline, one sentence each.

    Args:
        baseline: the baseline.
        candidate: the checked models.
        modes: the kind of comparison for each backbone and defense.
        assumed_spread: assumed standard deviation between seeds, a fraction.
    """
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
        lines.append("the training images, labels or boxes changed; the measured images are the same")
    if candidate.versions != baseline.versions:
        lines.append(f"the baseline was computed with {baseline.versions}; this with {candidate.versions}")
    return lines


def hints(
    baseline: Baseline, candidate: Candidate, modes: Questions, results: Sequence[CheckResult]
) -> list[str]:
    """Possible causes, the most likely first; empty if nothing failed.

    Args:
        baseline: the baseline.
        candidate: the checked models.
        modes: the kind of comparison for each backbone and defense.
        results: all results of the check.
    """
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
                "attacks may fail because gradients are missing, not because the model is robust: look at"
                " changed activations, rounding, argmax, detach and randomness; the attack square needs no"
                " gradient"
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
    """Settings that both sides have with different values; the data's fingerprint is left out."""
    return [
        f"{key} was {baseline.settings[key]}, is {value}"
        for key, value in sorted(candidate.settings.items())
        if key in baseline.settings and baseline.settings[key] != value and key != "data_fingerprint"
    ]


def retrained_on_other_data(baseline: Baseline, candidate: Candidate) -> bool:
    """Whether the training data differ from the baseline's although the measured images are the same."""
    return any(
        bool(baseline.measured_on)
        and figure.record.measured_on == baseline.measured_on
        and figure.record.data_fingerprint != baseline.data_fingerprint
        for _, figure in candidate.figures
    )


def _asked(entry: Entry, mode: ChosenMode, assumed_spread: float) -> str:
    if mode.mode is ComparisonMode.same_weights:
        return (
            f"same weights ({mode.why}): compared with seed {entry.seeds[0]} image by"
            " image, by McNemar's exact test"
        )
    seeds = (
        f"the spread of {len(entry.seeds)} seeds"
        if len(entry.seeds) > 1
        else f"one seed with an assumed standard deviation of {points(assumed_spread)} (--assumed-spread)"
    )
    return f"a re-training ({mode.why}): compared with {seeds}"


def _around_weights(entry: Entry, mode: ChosenMode, *, clean_fell: bool) -> str:
    if mode.models[0].weights != entry.weights[0]:
        return (
            f"the weights ({mode.models[0].weights}) differ from the baseline's ({entry.weights[0]}): look"
            " for the change (conversion, quantisation, pruning, noise, further training)"
        )
    if clean_fell:
        return (
            "the weights are the baseline's, but clean accuracy fell too: look at the preprocessing"
            " (normalisation, value range, channel order, resizing) and at changed layers"
        )
    return (
        "the weights are the baseline's, and clean accuracy did not fall: look at the defense at test time,"
        " at changed activations, and at the attacks' versions"
    )


def _in_training(baseline: Baseline, candidate: Candidate, *, clean_fell: bool) -> str:
    fell = "clean accuracy fell too" if clean_fell else "clean accuracy did not fall"
    if retrained_on_other_data(baseline, candidate):
        return f"the training images, labels or boxes changed, and {fell}: look at labels and files first"
    if changed_settings(baseline, candidate):
        return f"the plan changed, and {fell}: undo its changes one by one"
    return (
        f"neither plan nor data changed, and {fell}: look at the code of the training, the backbone and the"
        " defense, and at the versions"
    )
