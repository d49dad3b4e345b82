"""The files of each cell's training: weights, checkpoint, curves, facts, chosen variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, RootModel

from robustbench_tin.benchmarks.codes.status import OK, Status
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.runs.files import DamagedError, file_digest
from robustbench_tin.benchmarks.runs.kept_files import KeptFiles
from robustbench_tin.benchmarks.runs.records import Count, NotNegative
from robustbench_tin.errors import RunError


class Trained(BaseModel):
    """The facts of a cell's training; if it failed, ``status`` gives the reason.

    A given model was not trained here: only the digests of its record have a meaning.

    Attributes:
        network_size: side of the network's input in pixels; None for a given model.
        cell: the slug of the cell; empty in files of earlier versions, as are the next two.
        plan_digest: digest of the run's plan.
        weights_digest: digest of the weights file, or of a given model's tensors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Status = OK
    images: Count = 0
    steps: Count = 0
    seconds: NotNegative | None = 0.0
    lr: float | None = None
    loss: float | None = None
    precision: str | None = None
    network_size: Count | None = None
    notes: tuple[str, ...] = ()
    cell: str = ""
    plan_digest: str = ""
    weights_digest: str = ""


class SearchVariants(RootModel[dict[str, list[str]]]):
    """The chosen variants and those found to be wrong, in the form of ``search.json``."""


class TrainingFiles:
    """The files of a run's trainings; a run directory has its measurements, too.

    Attributes:
        path: the run directory.
        plan: the run's plan.
        files: reads and writes the files.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan
        self.files = KeptFiles()

    def weights_file(self, cell: Cell) -> Path:
        """Path of a cell's weights."""
        return self.cell_directory(cell) / "weights.safetensors"

    def checkpoint_file(self, cell: Cell) -> Path:
        """Path of the checkpoint of a cell's training."""
        return self.cell_directory(cell) / "checkpoint.safetensors"

    def curves_file(self, cell: Cell) -> Path:
        """Path of a cell's training curves."""
        return self.cell_directory(cell) / "curves.csv"

    def current_file(self, cell: Cell) -> Path:
        """Path of the file that names a cell's current part."""
        return self.cell_directory(cell) / "now.json"

    def events_directory(self, cell: Cell) -> Path:
        """Directory of the curves as TensorBoard events."""
        return self.path / "tensorboard" / cell.slug

    def trained(self, cell: Cell) -> Trained | None:
        """The facts of a cell's training; None if it is not trained yet.

        Raises:
            RunError: if the file is damaged, or belongs to another cell or run.
        """
        file = self.cell_directory(cell) / "training.json"
        if not file.exists():
            return None
        trained = self.files.read(file, Trained)
        if trained.cell not in ("", cell.slug) or trained.plan_digest not in ("", self.plan.digest):
            raise DamagedError(f"'{file}' belongs to another cell or run")
        return trained

    def save_trained(self, cell: Cell, trained: Trained) -> None:
        """Mark a cell as trained; write its weights before this call."""
        known = {"cell": cell.slug, "plan_digest": self.plan.digest}
        given = self.plan.given_model(cell.model)
        if given is not None:
            known["weights_digest"] = given.weights
        elif trained.status == OK:
            known["weights_digest"] = file_digest(self.weights_file(cell))
        self.files.write(self.cell_directory(cell) / "training.json", trained.model_copy(update=known))

    def checked_weights(self, cell: Cell) -> Path:
        """The weights file of a trained cell, checked against the digest of the training.

        Raises:
            RunError: if there is no weights file (with the reason), or its content has changed.
        """
        trained = self.trained(cell)
        if trained is None or trained.status != OK:
            why = "not trained" if trained is None else trained.status
            raise RunError(f"{cell.label} has no weights ({why}); train it again")
        file = self.weights_file(cell)
        if not file.exists():
            raise DamagedError(f"the weights of {cell.label}, '{file}', are missing")
        if trained.weights_digest and file_digest(file) != trained.weights_digest:
            raise DamagedError(
                f"the weights of {cell.label}, '{file}', are damaged or replaced (their digest differs from"
                f" the training's)"
            )
        return file

    def search_variants(self, cell: Cell) -> dict[str, list[str]]:
        """The variants chosen for a cell's searches, and those found to be wrong; empty if none is chosen.

        Raises:
            RunError: if the file is damaged.
        """
        file = self.cell_directory(cell) / "search.json"
        return self.files.read(file, SearchVariants).root if file.exists() else {}

    def save_search_variants(self, cell: Cell, labels: Mapping[str, Sequence[str]]) -> None:
        """Write the chosen variants and those found to be wrong, so that a continued run chooses the same."""
        lists = {name: list(chosen) for name, chosen in labels.items()}
        self.files.write(self.cell_directory(cell) / "search.json", SearchVariants(lists))

    def require_of_training(self, cell: Cell, weights_digest: str, file: Path) -> None:
        """Check that a file about a cell belongs to the cell's last training.

        Raises:
            RunError: if it does not.
        """
        trained = self.trained(cell)
        if trained is None or weights_digest not in ("", trained.weights_digest):
            raise DamagedError(f"'{file}' belongs to other weights than those of {cell.label}")

    def drop_search_variants(self, cell: Cell) -> None:
        """Delete the choice of variants."""
        self.files.forget(self.cell_directory(cell) / "search.json")

    @property
    def notes(self) -> list[str]:
        """Sentences about the run's files that a reader of its figures must know."""
        trained = {cell: self.trained(cell) for cell in self.plan.cells()}
        finished = {
            cell: known for cell, known in trained.items() if known is not None and known.status == OK
        }
        finished = {cell: known for cell, known in finished.items() if not self.plan.given_model(cell.model)}
        gone = [cell.label for cell in finished if not self.weights_file(cell).exists()]
        untied = [cell.label for cell, known in finished.items() if not known.weights_digest]
        notes = [
            f"the weights of {model.name} cannot be read, so a change of them cannot be noticed"
            for model in self.plan.given
            if not model.weights
        ]
        if gone:
            notes.append(
                f"the weights of {'; '.join(gone)} are missing, so these figures cannot be checked against"
                " them; the run's bench command trains them again"
            )
        if untied:
            notes.append(
                f"{'; '.join(untied)}: written by an earlier version, without digests; damage to the weights"
                " cannot be noticed"
            )
        return notes

    def cell_directory(self, cell: Cell) -> Path:
        """Directory of a cell's files."""
        return self.path / "cells" / cell.slug
