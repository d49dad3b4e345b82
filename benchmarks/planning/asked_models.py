"""Pair the models that ``evaluate`` was asked for with their weights files and names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustbench_tin.benchmarks.planning.config import NamedModelsConfig
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.text import counted


@dataclass(frozen=True)
class AskedModel:
    """A model as the user named it.

    Attributes:
        spec: the spec as typed.
        weights: its weights file; None: the model has its own weights, or uses published ones.
    """

    spec: str
    weights: Path | None = None


def asked_models(
    asked: NamedModelsConfig, takes_weights: Callable[[str], bool], needs_weights: Callable[[str], bool]
) -> list[AskedModel]:
    """The models to evaluate, in the user's order; one model with several weights files counts several times.

    Args:
        asked: the user's options.
        takes_weights: whether a model of this spec can load a weights file.
        needs_weights: whether a model of this spec has no weights without a file; if there are fewer files
            than models that can load one, these models get them.

    Raises:
        InvalidSettingError: if no model is given, or the files cannot be assigned.
    """
    if not asked.models:
        raise InvalidSettingError(
            "nothing to evaluate; give --model package.module:factory, FILE.py:factory, a model file, or a"
            " backbone's name with --weights or --pretrained"
        )
    files = [Path(file) for file in asked.weights]
    if not files:
        return [AskedModel(spec) for spec in asked.models]
    if len(asked.models) == 1:
        return [AskedModel(asked.models[0], file) for file in files]
    takers = [spec for spec in asked.models if takes_weights(spec)]
    for gets in (takes_weights, needs_weights):
        if sum(map(gets, asked.models)) == len(files):
            left = iter(files)
            return [AskedModel(spec, next(left) if gets(spec) else None) for spec in asked.models]
    raise InvalidSettingError(
        f"got {counted(len(files), '--weights file')} for {counted(len(takers), 'model')} that can load one"
        f" ({', '.join(takers) or 'none'}); expected one for each, in the same order"
    )


def given_names(names: Sequence[str], models: int) -> Sequence[str]:
    """The user's names for the models; empty if no names are given.

    Raises:
        InvalidSettingError: if there is not one name per model, a name occurs twice, or a name is empty.
    """
    if names and len(names) != models:
        raise InvalidSettingError(
            f"got {counted(len(names), '--name')} for {counted(models, 'model')}; expected one for each"
        )
    if len(set(names)) < len(names) or not all(name.strip() and name.isprintable() for name in names):
        raise InvalidSettingError(f"name got '{', '.join(names)}'; expected a distinct name for each model")
    return names
