"""The data options of a bench, stored next to its run, so that later commands need not repeat them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.planning.config import DataConfig
from robustbench_tin.benchmarks.runs.files import read_json
from robustbench_tin.data.place import absolute

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.runs.trained_model import TrainedModel

DATA_FILE = "data.json"


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    classes: int | str | list[str] | None = None
    train_per_class: int | None = None
    eval_images: int | None = None
    skip_broken: bool = False


def remember(run: Path, asked: DataConfig) -> None:
    """Write a bench's data options into its run directory; relative paths become absolute.

    Args:
        run: the run directory.
        asked: the data options that the user gave.
    """
    values = {**vars(asked), "data": absolute(asked.data)}
    if values["classes"] is not None and not isinstance(values["classes"], int | str):
        values["classes"] = list(values["classes"])
    options = _Options(**{name: values[name] for name in _Options.model_fields})
    write_text(run / DATA_FILE, options.model_dump_json(indent=2) + "\n")


def data_options(run: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The data options of a command: the given ones, completed with those of the run's bench.

    If the given data is not the run's, no option is taken from the run.

    Args:
        run: a run directory; None: no run.
        given: the options that the user gave, by name.

    Raises:
        RunError: if the run's file is needed and damaged.
    """
    if run is None or not (run / DATA_FILE).is_file():
        return dict(given)
    if "data" in given and set(given) == set(_Options.model_fields):
        return dict(given)
    kept = read_json(run / DATA_FILE, _Options).model_dump()
    if "data" in given and absolute(given["data"]) != kept["data"]:
        return dict(given)
    return {**kept, **given}


def run_of(found: TrainedModel) -> Path | None:
    """The run directory that contains a trained model; None for a weights file outside a run."""
    return None if found.run is None else found.run.path
