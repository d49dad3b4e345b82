"""Where to look when robustness got worse: what changed since the baseline, and what the figures point at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robustbench_tin.benchmarks.gate.baseline import Baseline, Entry
from robustbench_tin.benchmarks.gate.candidate import Subject
from robustbench_tin.benchmarks.gate.comparison_mode import Kind, Question
from robustbench_tin.benchmarks.gate.result import Finding, Verdict
from robustbench_tin.benchmarks.runs.records import CLEAN

Questions = Mapping[tuple[str, str], Question]


def facts(baseline: Baseline, subject: Subject, questions: Questions) -> list[str]:
    """Which question was asked of what, and what differs from the baseline, a sentence each."""
    said = []
    for entry in baseline.entries:
        question = questions.get((entry.model, entry.defense))
        if question is not None and question.kind is not None:
            said.append(f"{entry.label}: {_asked(entry, question)}")
        if question is not None and question.left_out:
            said.append(f"{entry.label}: {question.left_out}")
    changed = changed_settings(baseline, subject)
    if changed:
        said.append(f"the plan differs from the baseline's: {'; '.join(changed)}")
    if retrained_on_other_data(baseline, subject):
        said.append("the training images, labels or boxes are not the baseline's; the measured images are")
    if subject.versions != baseline.versions:
        said.append(f"the baseline was computed by {baseline.versions}; this by {subject.versions}")
    return said


def causes(
    baseline: Baseline, subject: Subject, questions: Questions, findings: Sequence[Finding]
) -> list[str]:
    """Where to look, most telling first; nothing where nothing failed."""
    found: list[str] = []
    for entry in baseline.entries:
        mine = [
            finding
            for finding in findings
            if (finding.model, finding.defense) == (entry.model, entry.defense)
        ]
        question = questions.get((entry.model, entry.defense))
        if question is None or question.kind is None:
            continue
        worse = [finding for finding in mine if finding.verdict is Verdict.worse]
        if any(finding.doubts for finding in mine):
            found.append(
                "attacks may fail for want of a gradient, not for want of an adversarial image: look at"
                " changed activations, rounding, argmax, detach and randomness; square needs no gradient"
            )
        if not worse:
            continue
        clean_fell = any(finding.key.attack == CLEAN for finding in worse)
        if question.kind is Kind.same_weights:
            found.append(_around_weights(entry, question, clean_fell=clean_fell))
        else:
            found.append(_in_training(baseline, subject, clean_fell=clean_fell))
    return list(dict.fromkeys(found))


def changed_settings(baseline: Baseline, subject: Subject) -> list[str]:
    """Settings that both sides have, and that differ; data are known by their fingerprints."""
    return [
        f"{key} was {baseline.settings[key]}, is {value}"
        for key, value in sorted(subject.settings.items())
        if key in baseline.settings and baseline.settings[key] != value and key != "data_fingerprint"
    ]


def retrained_on_other_data(baseline: Baseline, subject: Subject) -> bool:
    """Whether what was trained on differs, and what was measured on does not."""
    return any(
        bool(baseline.measured_on)
        and figure.record.measured_on == baseline.measured_on
        and figure.record.data_fingerprint != baseline.data_fingerprint
        for _, figure in subject.figures
    )


def _asked(entry: Entry, question: Question) -> str:
    if question.kind is Kind.same_weights:
        return (
            f"same weights, changed pipeline ({question.why}): compared with seed {entry.seeds[0]} image by"
            " image, McNemar's exact test"
        )
    seeds = (
        f"the spread of {len(entry.seeds)} seeds"
        if len(entry.seeds) > 1
        else "one seed, whose spread is unknown"
    )
    return f"a re-training ({question.why}): judged against {seeds}"


def _around_weights(entry: Entry, question: Question, *, clean_fell: bool) -> str:
    if question.models[0].weights != entry.weights[0]:
        return (
            f"the weights ({question.models[0].weights}) are not the baseline's ({entry.weights[0]}): look"
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


def _in_training(baseline: Baseline, subject: Subject, *, clean_fell: bool) -> str:
    fell = "clean accuracy fell, too" if clean_fell else "clean accuracy held"
    if retrained_on_other_data(baseline, subject):
        return (
            f"the training images, labels or boxes have changed, and {fell}: look at labels and files first"
        )
    if changed_settings(baseline, subject):
        return f"the plan has changed, and {fell}: undo its changes one by one"
    return (
        f"neither plan nor data have changed, and {fell}: look at the code of training, of the backbone and"
        " of the defense, and at the versions"
    )
