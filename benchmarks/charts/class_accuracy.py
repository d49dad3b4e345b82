"""Accuracy by class and confusion under attack, from the results per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robustbench_tin.benchmarks.charts.accuracy_points import (
    AccuracyPoint,
    accuracy_points,
    budgets,
    lowest_at,
)
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.reporting.seed_interval import interval_over_seeds
from robustbench_tin.benchmarks.reporting.table_rows import TableRow
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.specs import eps_text, short_numbers

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.runs.image_labels import ImageLabels


@dataclass(frozen=True)
class ClassAccuracy:
    """Top-1 of one class, the mean over seeds, in percent, with its 95 % interval.

    Attributes:
        name: name of the class.
        images: number of its images; each seed was measured on all of them.
        top1: accuracy in percent.
        low: lower end of the interval, over seeds and images.
        high: upper end of that interval.
    """

    name: str
    images: int
    top1: float
    low: float
    high: float


@dataclass(frozen=True)
class Confusion:
    """The number of images of one class that the model takes for another.

    Attributes:
        name: the true class.
        taken_for: the predicted class.
        count: number of such images, over all seeds.
        images: number of images of the true class, over all seeds.
    """

    name: str
    taken_for: str
    count: int
    images: int


@dataclass(frozen=True)
class ResultsByClass:
    """The results per image of a backbone and defense in one measurement, for all its seeds.

    Attributes:
        cell: name of backbone and defense.
        threat: ``clean``, or attack and budget.
        labels: labels of the images.
        results: one frame per seed, see :meth:`RunDirectory.outcomes`.
    """

    cell: str
    threat: str
    labels: ImageLabels
    results: Sequence[pd.DataFrame]

    def accuracies(self) -> list[ClassAccuracy]:
        """Top-1 of each class that has images, in label order."""
        own = np.array(self.labels.labels)
        counts = np.bincount(own, minlength=len(self.labels.names))
        rates = [np.bincount(own, each["top1"], len(counts)) / np.maximum(counts, 1) for each in self.results]
        found = []
        for label in counts.nonzero()[0]:
            of_seeds = [float(rate[label]) for rate in rates]
            low, high = interval_over_seeds(of_seeds, int(counts[label]))
            found.append(
                ClassAccuracy(
                    self.labels.name(int(label)),
                    int(counts[label]),
                    100 * fmean(of_seeds),
                    100 * low,
                    100 * high,
                )
            )
        return found

    def confusions(self) -> list[Confusion]:
        """The confused pairs of classes, the most frequent first; empty without predictions."""
        counted = [each for each in self.results if "predicted" in each]
        if not counted:
            return []
        own = np.tile(np.array(self.labels.labels), len(counted))
        predicted = np.concatenate([each["predicted"].to_numpy() for each in counted])
        wrong = predicted != own
        pairs, counts = np.unique(np.stack([own[wrong], predicted[wrong]]), axis=1, return_counts=True)
        images = np.bincount(own)
        order = np.argsort(-counts, kind="stable")
        return [
            Confusion(
                self.labels.name(int(label)), self.labels.name(int(other)), int(count), int(images[label])
            )
            for (label, other), count in zip(pairs.T[order], counts[order], strict=True)
        ]

    @property
    def confusion_matrix(self) -> npt.NDArray[np.int64] | None:
        """Counts by true and predicted class, int64 ``(C, C)``, over all seeds; None without predictions."""
        counted = [each for each in self.results if "predicted" in each]
        if not counted:
            return None
        own = np.array(self.labels.labels)
        size = 1 + max(int(own.max()), *(int(each["predicted"].max()) for each in counted))
        matrix = np.zeros((size, size), dtype=np.int64)
        for each in counted:
            np.add.at(matrix, (own, each["predicted"].to_numpy()), 1)
        return matrix


def results_by_class(shown: ShownRun, *, predicted: bool = False) -> Iterator[ResultsByClass]:
    """For each backbone and defense its clean results, then those of its worst attack at the largest eps.

    A run without labels, written by an earlier version, gives no results.

    Args:
        shown: the run.
        predicted: consider only attacks whose results contain predictions.
    """
    labels = shown.labels
    if labels is None:
        return
    points = accuracy_points(shown)
    for row in shown.rows:
        for attack, eps in (CLEAN, 0.0), *_worst(shown, points, row, predicted=predicted):
            results = list(_results(shown, row, attack, eps))
            if results:
                yield ResultsByClass(shown.label(row), _threat(attack, eps), labels, results)


def _worst(
    shown: ShownRun, points: Sequence[AccuracyPoint], row: TableRow, *, predicted: bool
) -> list[tuple[str, float]]:
    """The attack and budget with a row's lowest top-1 at the largest budget; empty without attacks."""
    own = [point for point in points if point.cell == shown.label(row)]
    if predicted:
        own = [point for point in own if point.attack in shown.run.plan.attacks]
    eps = max(budgets(own), default=None)
    worst = None if eps is None else lowest_at(own, shown.label(row), eps)
    return [] if worst is None else [(worst.attack, worst.eps)]


def _results(shown: ShownRun, row: TableRow, attack: str, eps: float) -> Iterator[pd.DataFrame]:
    for cell in shown.cells_of(row):
        record = next(
            (each.measures.get((attack, eps)) for each in row.seeds if each.seed == cell.seed), None
        )
        if record is not None and record["top1"] is not None and record["top1"] == record["top1"]:
            yield shown.run.outcomes(cell, attack, eps)


def _threat(attack: str, eps: float) -> str:
    return CLEAN if attack == CLEAN else f"{short_numbers(attack)} at {eps_text(eps)}"
