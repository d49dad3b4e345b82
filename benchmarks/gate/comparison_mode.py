"""Choose how to compare a backbone and defense with its baseline: as same weights or as a re-training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from robustbench_tin.benchmarks.gate.baseline import Entry
from robustbench_tin.benchmarks.gate.candidate import CandidateModel


class ComparisonMode(StrEnum):
    """The kind of comparison, which decides the significance test."""

    same_weights = "same weights"
    retrained = "retrained"


@dataclass(frozen=True)
class ChosenMode:
    """The kind of comparison for one backbone and defense.

    Attributes:
        mode: the kind; None if no comparison is possible.
        why: the reason for the choice, or why no comparison is possible; for people.
        models: the trainings that are judged.
        left_out: the candidate's trainings that are not judged, for people; empty if all are judged.
    """

    mode: ComparisonMode | None
    why: str
    models: tuple[CandidateModel, ...] = ()
    left_out: str = ""


def choose_mode(
    entry: Entry, models: Sequence[CandidateModel], forced_mode: ComparisonMode | None
) -> ChosenMode:
    """Choose the kind of comparison.

    Args:
        entry: the baseline's entry.
        models: the candidate's trainings of the same backbone and defense, one or more.
        forced_mode: the kind that the user requires; None to decide by the weights.
    """
    if forced_mode is ComparisonMode.retrained:
        return ChosenMode(forced_mode, "option --retrained", tuple(models))
    if forced_mode is ComparisonMode.same_weights:
        return _paired(entry, models, "option --same-weights")
    same = [model for model in models if model.weights is not None and model.weights in entry.weights]
    if any(model.weights is None for model in models):
        return ChosenMode(None, "the weights are not available; give --same-weights or --retrained")
    if not same:
        return ChosenMode(ComparisonMode.retrained, "the weights differ from the baseline's", tuple(models))
    if len(same) < len(models):
        return ChosenMode(
            None,
            f"{_seeds(same)} has the baseline's weights and the others do not; give --same-weights or"
            " --retrained",
        )
    if all(model.weights != entry.weights[0] for model in models):
        seeds = [entry.seeds[entry.weights.index(model.weights)] for model in models]
        return ChosenMode(
            None,
            f"these are the weights of the baseline's seed {', '.join(map(str, seeds))}, but the baseline has"
            f" results per image only for seed {entry.seeds[0]}; check that seed, or give --retrained",
        )
    return _paired(entry, models, "the weights are the baseline's")


def _paired(entry: Entry, models: Sequence[CandidateModel], why: str) -> ChosenMode:
    """Choose the training to compare image by image: one with the same weights, else with the same seed."""

    def unlike(model: CandidateModel) -> tuple[bool, bool]:
        return (model.weights is None or model.weights != entry.weights[0], model.seed != entry.seeds[0])

    chosen = min(models, key=unlike)
    if unlike(chosen) == (True, True) and len(models) > 1:
        return ChosenMode(
            None,
            f"none of the seeds {_numbers(models)} is the baseline's seed {entry.seeds[0]}; check a run of"
            " one seed, or give --retrained",
        )
    others = [model for model in models if model is not chosen]
    left_out = ""
    if others:
        left_out = (
            f"{_seeds(others)} not judged: the baseline has results per image only for seed {entry.seeds[0]}"
        )
    return ChosenMode(ComparisonMode.same_weights, why, (chosen,), left_out)


def _seeds(models: Sequence[CandidateModel]) -> str:
    return f"seed{'s' if len(models) > 1 else ''} {_numbers(models)}"


def _numbers(models: Sequence[CandidateModel]) -> str:
    return ", ".join(str(model.seed) for model in models)
