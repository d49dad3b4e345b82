"""The true labels of a run's evaluated images and the names of its classes, kept beside its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.runs.files import AGAIN, DamagedError, read_json
from robustbench_tin.data import Dataset

LABELS_FILE = "labels.json"


class ImageLabels(BaseModel):
    """What results per image need to be told by class.

    Attributes:
        classes: ids in label order, such as ``n01443537``.
        names: a readable name a class.
        labels: an index into both for each evaluated image, in the order of the results per image.
        plan_digest: of the run's plan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    plan_digest: str

    def name(self, label: int) -> str:
        """A class by its short name, that before the first comma, as ImageNet lists several.

        A model may have more outputs than the data set has classes; these go by their number.
        """
        if label >= len(self.names):
            return f"output {label}"
        return self.names[label].split(",")[0].strip() or self.classes[label]


def write_labels(run: Path, plan: Plan, labels: Iterable[int], names: Mapping[str, str]) -> None:
    """Write the labels and classes of the evaluated images into a run directory.

    Args:
        run: the directory.
        plan: of the run.
        labels: one an image.
        names: a readable name for each class id, in label order.
    """
    known = ImageLabels(
        classes=tuple(names), names=tuple(names.values()), labels=tuple(labels), plan_digest=plan.digest
    )
    write_text(run / LABELS_FILE, known.model_dump_json() + "\n")


def remember_labels(run: Path, plan: Plan, dataset: Dataset) -> None:
    """The same of a data set."""
    names = dict(zip(dataset.classes, dataset.class_names, strict=True))
    write_labels(run, plan, dataset.val.labels.tolist(), names)


def read_labels(run: Path, plan: Plan) -> ImageLabels | None:
    """The labels of a run's images; None if an earlier version wrote the run.

    Raises:
        RunError: if the file is damaged or of another run.
    """
    file = run / LABELS_FILE
    if not file.exists():
        return None
    known = read_json(file, ImageLabels)
    fits = len(known.labels) == plan.eval_images and len(known.names) == len(known.classes) == plan.classes
    if (
        known.plan_digest != plan.digest
        or not fits
        or not all(0 <= each < plan.classes for each in known.labels)
    ):
        raise DamagedError(f"'{file}' is of another run or damaged; remove it, then {AGAIN}")
    return known
