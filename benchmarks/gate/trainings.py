"""Measure several trainings of a user's own model, one weights file each, as the seeds of a baseline."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from robustbench_tin.benchmarks.gate.candidate import Candidate
from robustbench_tin.benchmarks.gate.user_model import UserModelSource
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.weights_file import read_weights_file, tensors_digest
from robustbench_tin.progress import Reporter


def measure_trainings(
    source: UserModelSource, weights: Sequence[Path], reporter: Reporter | None = None
) -> Candidate:
    """Measure a model once for each weights file.

    Args:
        source: the model, its data and its attacks.
        weights: weights files: the first one is seed 0, the next seed 1, and so on. Empty if the model has
            its weights already.
        reporter: shows progress; None for no output.

    Returns:
        One candidate with a model for each training.

    Raises:
        InvalidSettingError: if two files hold the same weights.
        RobustTinError: if a setting, the model or the data is not usable.
    """
    if len(weights) < 2:
        return replace(source, weights=next(iter(weights), None)).measure(reporter)
    _require_different(weights, [tensors_digest(read_weights_file(path).state) for path in weights])
    measured = [replace(source, weights=path).measure(reporter) for path in weights]
    models = [candidate.models[0] for candidate in measured]
    # The loaded weights may be equal although the files have other tensor names or additional tensors.
    _require_different(weights, [model.weights for model in models])
    return replace(
        measured[0],
        models=tuple(replace(model, seed=seed) for seed, model in enumerate(models)),
        command=" ".join([source.command, *(f"--weights {shlex.quote(str(path))}" for path in weights)]),
    )


def _require_different(weights: Sequence[Path], digests: Sequence[str | None]) -> None:
    known: dict[str | None, Path] = {}
    for path, digest in zip(weights, digests, strict=True):
        if digest in known:
            raise InvalidSettingError(
                f"weights '{path}' are the same as '{known[digest]}'; expected one file for each training"
            )
        known[digest] = path
