"""The places of the trained models that a run was given; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, RootModel

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.runs.files import read_json

MODELS_FILE = "models.json"


class ModelPlace(BaseModel):
    """The place of a model.

    Attributes:
        spec: as it was given; a path in it is absolute.
        weights: absolute path of the file with its weights; empty without such a file.
        class_order: order of its classes, as it was given; empty: the data set's. Earlier versions did not
            write it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: str
    weights: str = ""
    class_order: str = ""


class _Places(RootModel[dict[str, ModelPlace]]):
    """The places of a run's models, by name."""


def remember_models(run: Path, places: Mapping[str, ModelPlace]) -> None:
    """Write down in a run directory where its models lie."""
    write_text(run / MODELS_FILE, _Places(dict(places)).model_dump_json(indent=2) + "\n")


def model_places(run: Path) -> dict[str, ModelPlace]:
    """The places of a run's models, by name; empty if it does not say so.

    Raises:
        RunError: if the file is damaged.
    """
    file = run / MODELS_FILE
    return read_json(file, _Places).root if file.is_file() else {}
