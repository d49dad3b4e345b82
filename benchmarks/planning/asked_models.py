"""From the words of ``evaluate`` to the models that it measures: each with its weights file and its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustbench_tin.benchmarks.planning.config import NamedModelsConfig
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.text import counted


@dataclass(frozen=True)
class AskedModel:
    """A model by the words that name it.

    Attributes:
        spec: as typed.
        weights: its file; None: it brings its own, or they are published.
    """

    spec: str
    weights: Path | None = None


def asked_models(
    asked: NamedModelsConfig, takes_weights: Callable[[str], bool], needs_weights: Callable[[str], bool]
) -> list[AskedModel]:
    """The models that are asked for, in their order; a single one with several files is several.

    Args:
        asked: the options.
        takes_weights: whether a model of this spec may be filled from a weights file.
        needs_weights: whether it has no weights otherwise; if there are too few files for all that take one,
            these get them.

    Raises:
        InvalidSettingError: if there is no model, or the files cannot be shared out.
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
        f"got {counted(len(files), '--weights file')} for {counted(len(takers), 'model')} that take one"
        f" ({', '.join(takers) or 'none'}); expected one for each, in their order"
    )


def given_names(names: Sequence[str], models: int) -> Sequence[str]:
    """The names that are given to the models; none if none are given.

    Raises:
        InvalidSettingError: if there are not as many names as models, or one stands twice or is no name.
    """
    if names and len(names) != models:
        raise InvalidSettingError(
            f"got {counted(len(names), '--name')} for {counted(models, 'model')}; expected one for each"
        )
    if len(set(names)) < len(names) or not all(name.strip() and name.isprintable() for name in names):
        raise InvalidSettingError(f"name got '{', '.join(names)}'; expected another name for each model")
    return names
