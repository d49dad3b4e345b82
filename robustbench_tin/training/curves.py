"""Training curves: how a classifier stood after each epoch, in a file that is whole at any moment."""

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
    """How a classifier stood after an epoch; the fields are the columns of the file.

    Accuracies are 0 to 1. Those of training are of the passes that it was trained by: while it learned, on
    the images as the defense showed them. Those of validation are of a slice of the validation images; those
    of the monitor, of the training images that it looks at. None: not measured.

    Attributes:
        epoch: from 1.
        train_loss: what training minimised, its mean.
        train_top1: see :func:`robustbench_tin.training.batch_accuracy.right_answers`.
        train_top5: the same in the top 5.
        val_loss: the classification loss of clean images.
        val_top1: of clean images.
        val_top5: the same in the top 5.
        val_fgsm: under FGSM.
        val_pgd5: under PGD with 5 steps.
        monitor_fgsm: as the monitor saw it.
        monitor_pgd5: likewise.
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
"""Measures a classifier on validation images, and leaves it as it was: columns by their names."""


class Follower(Protocol):
    """What shows the curves elsewhere while they grow."""

    def restart(self, points: Sequence[Point]) -> None:
        """Begin anew with these."""

    def add(self, point: Point) -> None:
        """Go on with the next."""


class Curves:
    """The curves of one training, a point an epoch.

    Args:
        path: of the CSV file, written after each epoch.
        look: measures what is not of training itself; None: nothing more is measured.
        follower: is told of each point; None: nobody is.

    Attributes:
        points: in the order of the epochs.
    """

    def __init__(self, path: Path, look: Look | None = None, follower: Follower | None = None) -> None:
        self.path = path
        self.points: list[Point] = []
        self._look = look
        self._follower = follower

    def resume(self, epoch: int) -> None:
        """Go on after so many epochs; what the file has of later ones will be measured again.

        Raises:
            RunError: where the file is damaged.
        """
        there = read_curves(self.path) if epoch and self.path.exists() else []
        self.points = [point for point in there if point.epoch <= epoch]
        if self._follower is not None:
            self._follower.restart(self.points)

    def add(self, classifier: nn.Module, epoch: int, **known: float) -> None:
        """Measure the classifier after an epoch, from 1, and write it down beside what is known already."""
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
        RunError: where it cannot be read or is damaged.
    """
    try:
        return [
            Point(int(row["epoch"]), **{name: float(row[name]) for name in MEASURES if row[name]})
            for row in csv.DictReader(io.StringIO(read_text(path), newline=""))
        ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"curves '{path}' are damaged or of another version; remove that file") from error


def _short(value: float | None) -> str:
    """Six digits, which are again these once read back."""
    return "" if value is None else f"{value:.6g}"


def _text(points: Sequence[Point]) -> str:
    text = io.StringIO()
    lines = csv.DictWriter(text, ["epoch", *MEASURES], lineterminator="\n")
    lines.writeheader()
    for point in points:
        measures = {name: getattr(point, name) for name in MEASURES}
        lines.writerow({"epoch": point.epoch} | {name: _short(value) for name, value in measures.items()})
    return text.getvalue()
