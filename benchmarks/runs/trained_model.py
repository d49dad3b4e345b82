"""Find a trained model by the name that a user gives: a run, a cell of a run, or a weights file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from robustbench_tin.attacks.engine.attacked_model import AttackFailure
from robustbench_tin.benchmarks.planning.cell_names import cell_name, listed, select_cells
from robustbench_tin.benchmarks.planning.defense_sources import file_digest
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader, LoadedCell
from robustbench_tin.benchmarks.runs.run_directory import PLAN_FILE, RunDirectory
from robustbench_tin.data.base import Dataset
from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import DataError, RunError, WeightsError
from robustbench_tin.models import backbones, build_classifier, load_weights
from robustbench_tin.models.weights_file import read_weights_file
from robustbench_tin.runtime import Runtime

_EXPECTED = (
    "expected a run with one cell, RUN with --cell, RUN/MODEL/DEFENSE/SEED, or a weights file written by"
    " robust-tin"
)


@dataclass(frozen=True)
class TrainedModel:
    """The location of a trained model, and the facts needed to build it.

    Attributes:
        label: a name for people.
        weights: its weights file; None if it is a given model of a run.
        backbone: name of its backbone, or of the given model.
        classes: number of classes, C of its logits.
        image_size: height and width in pixels of the images that it was trained on.
        network_size: height and width in pixels of the network's input; None if unknown.
        defense: canonical spec of its defense; ``none`` for a weights file.
        run: its run; None for a weights file.
        cell: its cell in the run; None for a weights file.
    """

    label: str
    weights: Path | None
    backbone: str
    classes: int
    image_size: int
    network_size: int | None
    defense: str = "none"
    run: RunDirectory | None = field(default=None, compare=False)
    cell: Cell | None = None

    @property
    def plan(self) -> Plan | None:
        """The plan of its run; None for a weights file."""
        return None if self.run is None else self.run.plan

    @property
    def digest(self) -> str:
        """An identity that tells it from other models: its name and a digest."""
        if self.weights is not None:
            return file_digest(self.weights)
        given = None if self.plan is None else self.plan.given_model(self.backbone)
        return self.backbone if given is None else f"{given.name} {given.weights or given.file}"

    def named_outputs(self, dataset: Dataset) -> Dataset:
        """The data set with a class name for each output of the model; extra outputs get numbers."""
        given = None if self.plan is None else self.plan.given_model(self.backbone)
        if given is None or given.outputs == len(dataset.classes):
            return dataset
        order = given.order or range(given.outputs)
        others = tuple(f"output {order[index]}" for index in range(len(dataset.classes), given.outputs))
        return replace(
            dataset, classes=(*dataset.classes, *others), class_names=(*dataset.class_names, *others)
        )

    def load(self, device: str) -> LoadedCell:
        """Build the model, load its weights and move it to a device.

        Raises:
            WeightsError: if the weights do not fit.
            RunError: if it is a given model that is missing or has changed.
        """
        if self.weights is None:
            assert self.run is not None
            assert self.cell is not None
            return CellLoader(self.run, self.image_size, device).load(self.cell)
        classifier = build_classifier(
            backbones.get(self.backbone),
            self.classes,
            image_size=self.image_size,
            resize_to=self.network_size,
            seed=0,
        )
        load_weights(classifier, self.weights)
        bare = Runtime(device).place(classifier)
        return LoadedCell(bare, parse_defense(self.defense).wrap(bare))


def find_trained(text: str | Path, cell: str | None = None) -> TrainedModel:
    """The trained model that ``RUN`` (with one cell), ``RUN/CELL`` or ``FILE`` names; not loaded yet.

    A cell's name is ``mobilenet/fgsm-at/0`` or the name of its directory, as
    :func:`robustbench_tin.benchmarks.planning.cell_names.is_named` accepts it; ``RUN/cells/CELL`` works, too.

    Args:
        text: the run, a cell of it, or a file.
        cell: a cell of the run ``text``; None: ``text`` names it, or the run has only one.

    Raises:
        RunError: if there is no such model, or the run has several such cells.
        WeightsError: if a weights file does not name its network.
    """
    path = Path(text).expanduser()
    if path.is_file() and cell is None:
        return _of_file(path)
    if (path / PLAN_FILE).is_file():
        return _only_cell(RunDirectory.load(path), "*" if cell is None else cell)
    home = next((folder for folder in path.parents if (folder / PLAN_FILE).is_file()), None)
    if home is None or cell is not None:
        raise RunError(f"no {'run' if cell is not None else 'trained model'} at '{text}'; {_EXPECTED}")
    return _only_cell(RunDirectory.load(home), path.relative_to(home).as_posix().removeprefix("cells/"))


def _only_cell(run: RunDirectory, name: str) -> TrainedModel:
    found = select_cells(run.plan.cells(), name, str(run.path))
    if len(found) > 1:
        names = listed([cell_name(cell) for cell in found])
        raise RunError(
            f"run '{run.path}' has {len(found)} cells{'' if name == '*' else f' {name!r}'}; name one of them"
            f" with --cell, or append it to the run's path: {names}"
        )
    return _of_cell(run, found[0])


def require_fit(found: TrainedModel, dataset: Dataset) -> None:
    """Check that a model's classes can be those of a data set.

    Raises:
        DataError: if the data set or the number of classes differs.
    """
    plan = found.plan
    if found.classes == len(dataset.classes) and (plan is None or plan.data == dataset.name):
        return
    wanted = f"{found.classes} classes" + ("" if plan is None else f" of {plan.data}")
    raise DataError(
        f"got {dataset.name} with {len(dataset.classes)} classes, but {found.label} was trained on {wanted};"
        " give the --data and --classes of its bench"
    )


@contextmanager
def failing(label: str) -> Iterator[None]:
    """Report a failure inside a model or an attack in one line.

    Raises:
        RunError: with the reason.
    """
    try:
        yield
    except AttackFailure as failure:
        raise RunError(f"{label} cannot be used: {failure}") from failure


def _of_cell(run: RunDirectory, cell: Cell) -> TrainedModel:
    label = f"{cell.label} of {run.path}"
    given = run.plan.given_model(cell.model)
    if given is not None:
        size = given.image_size
        return TrainedModel(
            label, None, given.name, run.plan.classes, size, None, cell.defense, run=run, cell=cell
        )
    file = _of_file(run.checked_weights(cell))
    return replace(file, label=label, defense=cell.defense, run=run, cell=cell)


def _of_file(path: Path) -> TrainedModel:
    said = read_weights_file(path).metadata
    try:
        return TrainedModel(
            label=str(path),
            weights=path,
            backbone=said["backbone"],
            classes=int(said["num_classes"]),
            image_size=int(said["image_size"]),
            network_size=int(said["resize_to"]),
        )
    except (KeyError, ValueError):
        raise WeightsError(f"weights '{path}' do not name their network; {_EXPECTED}") from None
