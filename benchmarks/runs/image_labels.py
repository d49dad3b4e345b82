"""The true labels of a run's evaluated images and the names of its classes, stored next to its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.runs.files import REMOVE, DamagedError, read_json
from robustbench_tin.data import Dataset

LABELS_FILE = "labels.json"


class ImageLabels(BaseModel):
    """The labels and class names that per-class views of the results per image need.

    Attributes:
        classes: class ids in label order, such as ``n01443537``.
        names: a readable name per class.
        labels: true label of each evaluated image, an index into both, in the order of the results.
        plan_digest: digest of the run's plan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    plan_digest: str

    def name(self, label: int) -> str:
        """The short name of a class: the part before the first comma, since ImageNet lists synonyms.

        A model may have more outputs than the data set has classes; the extra ones are shown by number.
        """
        if label >= len(self.names):
            return f"output {label}"
        return self.names[label].split(",")[0].strip() or self.classes[label]


def write_labels(run: Path, plan: Plan, labels: Iterable[int], names: Mapping[str, str]) -> None:
    """Write the labels and classes of the evaluated images into a run directory.

    Args:
        run: the run directory.
        plan: the run's plan.
        labels: true label of each image.
        names: a readable name for each class id, in label order.
    """
    known = ImageLabels(
        classes=tuple(names), names=tuple(names.values()), labels=tuple(labels), plan_digest=plan.digest
    )
    write_text(run / LABELS_FILE, known.model_dump_json() + "\n")


def remember_labels(run: Path, plan: Plan, dataset: Dataset) -> None:
    """Write the labels and classes of a data set into a run directory."""
    names = dict(zip(dataset.classes, dataset.class_names, strict=True))
    write_labels(run, plan, dataset.val.labels.tolist(), names)


def read_labels(run: Path, plan: Plan) -> ImageLabels | None:
    """The labels of a run's images; None if an earlier version wrote the run.

    Raises:
        RunError: if the file is damaged or belongs to another run.
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
        raise DamagedError(f"'{file}' is damaged or belongs to another run", REMOVE)
    return known
