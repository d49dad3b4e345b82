"""Check that a command on a finished run gets the run's data and its plugins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustbench_tin.benchmarks.planning.defense_sources import file_digest
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.data import Dataset
from robustbench_tin.errors import DataError, RunError
from robustbench_tin.registry import load_plugin


def load_plugins(plan: Plan, plugins: Sequence[str | Path]) -> None:
    """Load the plugins of a run.

    Raises:
        RunError: if one of them is not given.
    """
    missing = set(plan.plugins) - {file_digest(Path(plugin)) for plugin in plugins}
    if missing:
        raise RunError(
            f"the run was made with plugin {', '.join(sorted(missing))} (name and digest); give that file"
            " with --plugin"
        )
    for plugin in plugins:
        load_plugin(plugin)


def require_same_data(plan: Plan, dataset: Dataset) -> None:
    """Check that a data set is the run's.

    Raises:
        DataError: if it is another data set or another part of it.
    """
    if dataset.fingerprint == plan.data_fingerprint:
        return
    given = _counted(dataset.name, len(dataset.classes), len(dataset.train), len(dataset.val))
    wanted = _counted(plan.data, plan.classes, plan.train_images, plan.eval_images)
    raise DataError(
        f"got {given} (fingerprint {dataset.fingerprint}), but the run was made on {wanted} (fingerprint"
        f" {plan.data_fingerprint}); give the --data, --classes, --train-per-class and --eval-images of its"
        " bench"
    )


def _counted(name: str, classes: int, train: int, val: int) -> str:
    return f"{name} with {classes} classes, {train:,} training and {val:,} evaluated images"
