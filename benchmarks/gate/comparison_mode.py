"""Which question a check asks of a backbone and defense: are these the same weights, or a re-training?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from robustbench_tin.benchmarks.gate.baseline import Entry
from robustbench_tin.benchmarks.gate.candidate import CandidateModel


class ComparisonMode(StrEnum):
    """The question, and with it the test."""

    same_weights = "same weights"
    retrained = "retrained"


@dataclass(frozen=True)
class ChosenMode:
    """What is asked of one backbone and defense.

    Attributes:
        mode: None where neither can be asked.
        why: how that is known, or why nothing can be asked; for people.
        models: the trainings that are judged.
        left_out: what of the subject is not judged, for people; empty where all is.
    """

    mode: ComparisonMode | None
    why: str
    models: tuple[CandidateModel, ...] = ()
    left_out: str = ""


def choose_mode(
    entry: Entry, models: Sequence[CandidateModel], forced_mode: ComparisonMode | None
) -> ChosenMode:
    """Decide which question it is.

    Args:
        entry: the baseline's.
        models: the subject's trainings of the same backbone and defense, one or more.
        forced_mode: what the user says it is; None: the weights tell.
    """
    if forced_mode is ComparisonMode.retrained:
        return ChosenMode(forced_mode, "said by --retrained", tuple(models))
    if forced_mode is ComparisonMode.same_weights:
        return _paired(entry, models, "said by --same-weights")
    same = [model for model in models if model.weights is not None and model.weights in entry.weights]
    if any(model.weights is None for model in models):
        return ChosenMode(None, "the weights are not at hand; say --same-weights or --retrained")
    if not same:
        return ChosenMode(ComparisonMode.retrained, "other weights than the baseline's", tuple(models))
    if len(same) < len(models):
        return ChosenMode(
            None,
            f"{_seeds(same)} has the baseline's weights and the others do not; say --same-weights or"
            " --retrained",
        )
    if all(model.weights != entry.weights[0] for model in models):
        seeds = [entry.seeds[entry.weights.index(model.weights)] for model in models]
        return ChosenMode(
            None,
            f"these are the weights of the baseline's seed {', '.join(map(str, seeds))}, and image by image"
            f" it keeps seed {entry.seeds[0]}; check that one, or say --retrained",
        )
    return _paired(entry, models, "the weights are the baseline's")


def _paired(entry: Entry, models: Sequence[CandidateModel], why: str) -> ChosenMode:
    """The one training that is compared image by image: of the same weights, else of the same seed."""

    def unlike(model: CandidateModel) -> tuple[bool, bool]:
        return (model.weights is None or model.weights != entry.weights[0], model.seed != entry.seeds[0])

    chosen = min(models, key=unlike)
    if unlike(chosen) == (True, True) and len(models) > 1:
        return ChosenMode(
            None,
            f"none of seeds {_numbers(models)} is the baseline's {entry.seeds[0]}; check a run of one seed,"
            " or say --retrained",
        )
    others = [model for model in models if model is not chosen]
    left_out = ""
    if others:
        left_out = (
            f"{_seeds(others)} not judged: the baseline keeps only seed {entry.seeds[0]} image by image"
        )
    return ChosenMode(ComparisonMode.same_weights, why, (chosen,), left_out)


def _seeds(models: Sequence[CandidateModel]) -> str:
    return f"seed{'s' if len(models) > 1 else ''} {_numbers(models)}"


def _numbers(models: Sequence[CandidateModel]) -> str:
    return ", ".join(str(model.seed) for model in models)
