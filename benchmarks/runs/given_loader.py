"""Trained models given to a run: their locations, and reloading them in the form that was measured."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from robustbench_tin.benchmarks.planning.defense_sources import file_digest
from robustbench_tin.benchmarks.planning.given_models import GivenModel
from robustbench_tin.benchmarks.runs.model_places import ModelPlace, model_places
from robustbench_tin.benchmarks.runs.training_files import TrainingFiles
from robustbench_tin.errors import RobustTinError, RunError
from robustbench_tin.models.adapters import Adaptation
from robustbench_tin.models.classifier import Classifier
from robustbench_tin.models.model_config import ModelConfig
from robustbench_tin.models.ordered_outputs import OrderedOutputs
from robustbench_tin.models.ready_model import Normalisation, load_model
from robustbench_tin.models.user_model import UserModel, is_model_file
from robustbench_tin.runtime import Runtime


class ChangedModelError(RunError):
    """A given model has other weights, or another file, than when it was measured."""


def place_of(spec: str, weights: Path | None, class_order: str | None = None) -> ModelPlace:
    """The location that the user's spec and weights name."""
    file = file_of(spec)
    if file is not None:
        spec = spec.replace(str(file), str(file.expanduser().absolute()), 1)
    return ModelPlace(
        spec=spec,
        weights="" if weights is None else str(weights.expanduser().absolute()),
        class_order=class_order or "",
    )


def file_of(spec: str) -> Path | None:
    """The file that a model's spec names; None for a function of a module and for a backbone."""
    if is_model_file(spec):
        return Path(spec)
    place, colon, _ = spec.rpartition(":")
    return Path(place) if colon and place.endswith(".py") else None


def as_measured(own: UserModel, given: GivenModel, device: str) -> nn.Module:
    """A loaded model in the form that the plan measures: adapted, with outputs in the data set's order."""
    module = own.original if own.original is not None and not given.gradients else own.module
    adaptation = _adaptation(given)
    module = adaptation.inside(placed(module, device))
    module = adaptation.outside(Normalisation(given.mean, given.std).around(module))
    return OrderedOutputs(module, given.order) if given.order else module


def _adaptation(given: GivenModel) -> Adaptation:
    low_and_high = given.value_range
    return Adaptation(
        output=given.output or None,
        batch_size=given.batch_size,
        pad=given.pad,
        grayscale=given.grayscale,
        value_range=(low_and_high[0], low_and_high[1]) if len(low_and_high) == 2 else None,
    )


def placed(module: nn.Module, device: str) -> nn.Module:
    """A trained model on the device; only robust-tin's backbones use channels-last memory.

    Another network may call ``view`` on its activations, which fails with channels-last.
    """
    return Runtime(device, channels_last=isinstance(module, Classifier)).place(module)


def load_given(run: TrainingFiles, given: GivenModel, device: str) -> nn.Module:
    """Load a given model of a run again.

    Raises:
        RunError: if it is missing or cannot be loaded any more.
        ChangedModelError: if its weights are not those that were measured.
    """
    place = model_places(run.path).get(given.name)
    if place is None:
        raise RunError(
            f"run '{run.path}' does not say where model '{given.name}' is; run its evaluate command again"
        )
    asked = ModelConfig(pretrained=given.pretrained, model_args=given.arguments)
    weights = Path(place.weights) if place.weights else None
    try:
        own = load_model(place.spec, weights, asked, given.image_size, run.plan.classes, device)
    except RobustTinError as error:
        raise RunError(f"model '{given.name}' of run '{run.path}' cannot be loaded again: {error}") from error
    there, here = given.weights, own.weights or ""
    file = file_of(place.spec)
    if not given.weights and file is not None:
        there, here = given.file, file_digest(file)  # the model has no readable weights
    if there != here:
        random = not place.weights and ":" in given.spec and not given.pretrained
        hint = "; if its function creates new weights at each call, give --weights" if random else ""
        raise ChangedModelError(
            f"model '{given.name}' has changed since run '{run.path}' measured it (then {there or 'none'},"
            f" now {here or 'none'}); restore the old one at '{place.weights or place.spec}', or"
            f" evaluate the new one in another run directory{hint}"
        )
    return as_measured(own, given, device)
