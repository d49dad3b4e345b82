"""A trained model by what a user calls it: a run, a cell of a run, or a weights file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from robustbench_tin.attacks.engine.attacked_model import AttackFailure
from robustbench_tin.benchmarks.planning.cell_names import cell_name, listed, select_cells
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.runs.cell_loader import LoadedCell
from robustbench_tin.benchmarks.runs.run_directory import PLAN_FILE, RunDirectory
from robustbench_tin.data.base import Dataset
from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import DataError, RunError, WeightsError
from robustbench_tin.models import backbones, build_classifier, load_weights
from robustbench_tin.models.weights_file import read_weights_file
from robustbench_tin.runtime import Runtime

_EXPECTED = (
    "expected a run with one cell, RUN with --cell, RUN/MODEL/DEFENSE/SEED, or a weights file that robust-tin"
    " wrote"
)


@dataclass(frozen=True)
class TrainedModel:
    """Where a trained model lies, and what it takes to build it.

    Attributes:
        label: for people.
        weights: its file.
        backbone: its name.
        classes: C of its logits.
        image_size: height and width in pixels of the images that it was trained on.
        network_size: height and width in pixels of what the network sees.
        defense: canonical spec of what may run around it; ``none`` of a weights file.
        plan: of its run; None of a weights file.
    """

    label: str
    weights: Path
    backbone: str
    classes: int
    image_size: int
    network_size: int
    defense: str = "none"
    plan: Plan | None = None

    def load(self, device: str) -> LoadedCell:
        """Build it, fill it and place it.

        Raises:
            WeightsError: where the file does not fit.
        """
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
    """The trained model that ``RUN`` (of one cell), ``RUN/CELL`` or ``FILE`` stands for, not loaded yet.

    A cell is named as :func:`robustbench_tin.benchmarks.planning.cell_names.is_named` says: as
    ``mobilenet/fgsm-at/0`` or as its directory; ``RUN/cells/CELL`` will do too.

    Args:
        text: the run, a cell of it, or a file.
        cell: of the run ``text``; None: ``text`` names it, or the run has only one.

    Raises:
        RunError: if no such model lies there, or a run has several such cells.
        WeightsError: for a weights file that does not say what network it is of.
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
            f" with --cell, or behind the run's path: {names}"
        )
    return _of_cell(run, found[0])


def require_fit(found: TrainedModel, dataset: Dataset) -> None:
    """Check that a model's classes can be those of a data set.

    Raises:
        DataError: if they are of another data set, or of another number.
    """
    plan = found.plan
    if found.classes == len(dataset.classes) and (plan is None or plan.data == dataset.name):
        return
    wanted = f"{found.classes} classes" + ("" if plan is None else f" of {plan.data}")
    raise DataError(
        f"got {dataset.name} with {len(dataset.classes)} classes, and {found.label} was trained on {wanted};"
        " give the --data and --classes of its bench"
    )


@contextmanager
def failing(label: str) -> Iterator[None]:
    """What a model or an attack does wrong inside is told in one line.

    Raises:
        RunError: saying what.
    """
    try:
        yield
    except AttackFailure as failure:
        raise RunError(f"{label} cannot be used: {failure}") from failure


def _of_cell(run: RunDirectory, cell: Cell) -> TrainedModel:
    file = _of_file(run.checked_weights(cell))
    return TrainedModel(
        label=f"{cell.label} of {run.path}",
        weights=file.weights,
        backbone=file.backbone,
        classes=file.classes,
        image_size=file.image_size,
        network_size=file.network_size,
        defense=cell.defense,
        plan=run.plan,
    )


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
        raise WeightsError(f"weights '{path}' do not say what network they are of; {_EXPECTED}") from None
