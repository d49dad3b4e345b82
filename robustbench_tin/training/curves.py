"""Training curves: the measurements after each epoch, in a file that is complete at any moment."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from robustbench_tin.atomic import write_text
from robustbench_tin.errors import RunError
from robustbench_tin.files import read_text

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Point:
    """The measurements after an epoch; the fields are the columns of the file.

    Accuracies are 0 to 1. The training accuracies come from the training passes themselves: during learning,
    on the images after the defense changed them. The validation accuracies are measured on a part of the
    validation images, the monitor's on the training images that it watches. None: not measured.

    Attributes:
        epoch: the epoch, from 1.
        train_loss: mean of the training objective.
        train_top1: see :func:`robustbench_tin.training.batch_accuracy.right_answers`.
        train_top5: the same for the top 5.
        val_loss: classification loss on clean images.
        val_top1: top-1 accuracy on clean images.
        val_top5: top-5 accuracy on clean images.
        val_fgsm: accuracy under FGSM.
        val_pgd5: accuracy under PGD with 5 steps.
        monitor_fgsm: the monitor's accuracy under FGSM.
        monitor_pgd5: the monitor's accuracy under PGD with 5 steps.
    """

    epoch: int
    train_loss: float | None = None
    train_top1: float | None = None
    train_top5: float | None = None
    val_loss: float | None = None
    val_top1: float | None = None
    val_top5: float | None = None
    val_fgsm: float | None = None
    val_pgd5: float | None = None
    monitor_fgsm: float | None = None
    monitor_pgd5: float | None = None


MEASURES = tuple(field.name for field in fields(Point))[1:]
"""The columns after ``epoch``."""

Look = Callable[["nn.Module"], dict[str, float]]
"""Measures a classifier on validation images without changing it; returns columns by name."""


class Follower(Protocol):
    """Shows the curves elsewhere while they grow."""

    def restart(self, points: Sequence[Point]) -> None:
        """Start again with these points."""

    def add(self, point: Point) -> None:
        """Add the next point."""


class Curves:
    """The curves of one training, one point per epoch.

    Args:
        path: path of the CSV file, written after each epoch.
        look: measures the validation columns; None to measure none.
        follower: gets each point; None for no follower.

    Attributes:
        points: the points in the order of the epochs.
    """

    def __init__(self, path: Path, look: Look | None = None, follower: Follower | None = None) -> None:
        self.path = path
        self.points: list[Point] = []
        self._look = look
        self._follower = follower

    def resume(self, epoch: int) -> None:
        """Continue after this number of epochs; later points in the file will be measured again.

        Raises:
            RunError: if the file is damaged.
        """
        there = read_curves(self.path) if epoch and self.path.exists() else []
        self.points = [point for point in there if point.epoch <= epoch]
        if self._follower is not None:
            self._follower.restart(self.points)

    def add(self, classifier: nn.Module, epoch: int, **known: float) -> None:
        """Measure the classifier after an epoch, from 1, and save the result with the known measures."""
        looked = {} if self._look is None else self._look(classifier)
        measures = {name: value for name, value in {**known, **looked}.items() if math.isfinite(value)}
        point = Point(epoch, **measures)
        self.points.append(point)
        write_text(self.path, _text(self.points))
        if self._follower is not None:
            self._follower.add(point)


def read_curves(path: Path) -> list[Point]:
    """The points of a file that :class:`Curves` wrote.

    Raises:
        RunError: if it cannot be read or is damaged.
    """
    try:
        return [
            Point(int(row["epoch"]), **{name: float(row[name]) for name in MEASURES if row[name]})
            for row in csv.DictReader(io.StringIO(read_text(path), newline=""))
        ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"curves '{path}' are damaged or of another version; remove that file") from error


def _short(value: float | None) -> str:
    """Six digits, which stay the same when they are read and written again."""
    return "" if value is None else f"{value:.6g}"


def _text(points: Sequence[Point]) -> str:
    text = io.StringIO()
    lines = csv.DictWriter(text, ["epoch", *MEASURES], lineterminator="\n")
    lines.writeheader()
    for point in points:
        measures = {name: getattr(point, name) for name in MEASURES}
        lines.writerow({"epoch": point.epoch} | {name: _short(value) for name, value in measures.items()})
    return text.getvalue()
