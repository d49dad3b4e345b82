"""The rows that charts draw are the figures of the tables and of the results per image."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from robustbench_tin.benchmarks.charts.accuracy_points import accuracy_points, clean_of, lowest_at
from robustbench_tin.benchmarks.charts.class_accuracy import ResultsByClass, results_by_class
from robustbench_tin.benchmarks.charts.class_chart import class_rows
from robustbench_tin.benchmarks.charts.curves_chart import curve_rows
from robustbench_tin.benchmarks.charts.pareto_chart import front, pareto_rows
from robustbench_tin.benchmarks.charts.saliency_chart import over_seeds
from robustbench_tin.benchmarks.charts.shown_run import open_runs
from robustbench_tin.benchmarks.charts.transfer_chart import transfer_rows
from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.benchmarks.evidence.saliency import SaliencyShare
from robustbench_tin.benchmarks.reporting.seed_interval import interval_over_seeds
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.image_labels import ImageLabels
from robustbench_tin.errors import InvalidSettingError, RunError


def test_points_are_the_figures_of_the_tables(made: Run) -> None:
    (shown,) = open_runs([made.path])
    points = accuracy_points(shown)
    assert len(points) == 6 * (1 + 3 * 3)
    (table, *_) = made.tables
    (row,) = (row for row in table.rows if row[:2] == ("mobilenet", "fgsm-at"))
    of_cell = [point for point in points if point.cell == "mobilenet + fgsm-at"]
    assert [point.figure.number for point in of_cell] == [
        text.number for text, heading in zip(row[2:], table.columns[2:], strict=True) if "top-1" in heading
    ]
    record = made.records.query("model == 'mobilenet' and defense == 'fgsm-at' and attack == 'pgd'").iloc[-1]
    point = next(each for each in of_cell if each.attack == "pgd" and each.eps == record["eps"])
    assert (point.top1, point.low, point.high) == pytest.approx(
        [100 * record[name] for name in ("top1", "top1_low", "top1_high")]
    )
    worst = lowest_at(points, "mobilenet + fgsm-at", record["eps"])
    assert worst.top1 == min(each.top1 for each in of_cell if each.eps == record["eps"])
    assert clean_of(points, point.cell).attack == "clean"
    doubted = {(each.cell, each.threat) for each in points if each.trust is Trust.doubted}
    assert ("mobilenet + fgsm-at", "fgsm at 8/255") in doubted
    assert all(threat == "fgsm at 8/255" for _, threat in doubted)


def test_the_front_is_what_nothing_beats() -> None:
    def pair(clean: float, robust: float) -> tuple:
        return SimpleNamespace(top1=clean), SimpleNamespace(top1=robust)

    pairs = [pair(90, 10), pair(80, 40), pair(85, 20), pair(80, 30), pair(70, 40), pair(60, 45), pair(90, 5)]
    assert [each.top1 for each in front(pairs)] == [10, 20, 40, 45]


def test_unreliable_figures_are_not_on_the_front(made: Run) -> None:
    (shown,) = open_runs([made.path])
    points = accuracy_points(shown)
    rows = pareto_rows(points, {"": "linf"})
    assert len(rows) == 3 * 6
    assert {row["panel"] for row in rows} == {"L∞ eps 2/255", "L∞ eps 4/255", "L∞ eps 8/255"}
    for row in rows:
        beaten = any(
            other["panel"] == row["panel"]
            and other["clean"] > row["clean"]
            and other["robust"] > row["robust"]
            for other in rows
        )
        assert row["front"] is not beaten


def test_classes_and_confusions_are_counted_from_the_images() -> None:
    labels = ImageLabels(
        classes=("a", "b", "c"), names=("cat, felis", "dog", "cow"), labels=(0, 0, 1, 1, 1, 2), plan_digest=""
    )
    predicted = [np.array(each, dtype=np.int32) for each in ([0, 1, 1, 0, 0, 2], [0, 1, 0, 0, 1, 1])]
    results = [
        pd.DataFrame({"top1": each == np.array(labels.labels), "predicted": each}) for each in predicted
    ]
    found = ResultsByClass("net + none", "clean", labels, results)
    cat, dog, cow = found.accuracies()
    assert (cat.name, cat.images, cat.top1, cow.top1) == ("cat", 2, 50.0, 50.0)
    assert dog.top1 == pytest.approx(100 / 3)
    assert (cow.low, cow.high) == tuple(100 * end for end in interval_over_seeds([1.0, 0.0], 1))
    first = found.confusions()[0]
    assert (first.name, first.taken_for, first.count, first.images) == ("dog", "cat", 4, 6)
    assert found.confusion_matrix.tolist() == [[2, 2, 0], [4, 2, 0], [0, 1, 1]]


def test_the_worst_classes_come_first(made: Run) -> None:
    (shown,) = open_runs([made.path], "mobilenet/none")
    clean, attacked = results_by_class(shown)
    assert (clean.threat, attacked.threat) == ("clean", "worst-case at 8/255")
    own = [row for row in class_rows([shown]) if row["kind"] == "under attack"]
    assert [row["top1"] for row in own] == sorted(row["top1"] for row in own)
    labels = np.array(shown.labels.labels)
    hits = made.outcomes(shown.cells[0], "worst-case", 8 / 255)["top1"]
    expected = 100 * min(hits[labels == label].mean() for label in range(10))
    assert own[0]["top1"] == pytest.approx(expected, abs=1e-3)


def test_a_run_of_an_earlier_version_has_no_classes(made: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = open_runs([made.path])
    monkeypatch.setitem(shown.__dict__, "labels", None)
    assert class_rows([shown]) == []


def test_curves_are_means_over_seeds(seeded: Run) -> None:
    rows = curve_rows(open_runs([seeded.path]))
    assert {row["seeds"] for row in rows} == {"3"}
    row = next(
        row for row in rows if (row["panel"], row["line"], row["epoch"]) == ("top-1, %", "training", 2)
    )
    assert row["low"] < row["value"] < row["high"]
    rates = [100 * (1 - 0.8 / (2 + 0.1 * number)) for number in range(3)]
    assert (row["low"], row["high"]) == pytest.approx((rates[0], rates[2]), abs=0.01)


def test_transfers_name_source_and_target(made: Run) -> None:
    rows = transfer_rows(open_runs([made.path]))
    assert {(row["source"], row["target"]) for row in rows} == {
        ("resnet50 + none", "resnet50 + bbox-crop"),
        ("resnet50 + bbox-crop", "resnet50 + none"),
    }
    assert transfer_rows(open_runs([made.path], "*/none/*")) == []
    assert {row["panel"] for row in rows} == {"mi-fgsm, L∞ eps 8/255"}


def test_saliency_over_seeds_has_both_errors() -> None:
    def share(mean: float) -> SaliencyShare:
        return SaliencyShare("net/none/0", "saliency", 50, mean, mean - 0.03, mean + 0.03)

    assert over_seeds([share(0.4)]) == pytest.approx((0.4, 0.37, 0.43))
    mean, low, high = over_seeds([share(0.38), share(0.42)])
    # Student's t with one degree of freedom, 12.706, times the standard error 0.02.
    assert (mean, high) == pytest.approx((0.4, 0.4 + np.hypot(0.03, 12.7062 * 0.02)), abs=1e-4)
    assert low == pytest.approx(0.8 - high, abs=1e-9)


def test_runs_have_names_of_their_own(made: Run, seeded: Run) -> None:
    first, second = open_runs([made.path, seeded.path])
    assert (first.name, second.name) == ("first", "second")
    assert first.label(first.rows[0]) == "first: resnet50 + none"
    (only,) = open_runs([made.path, seeded.path], "vgg16/*")
    assert only.run.path == seeded.path
    with pytest.raises(InvalidSettingError, match="got the same run twice"):
        open_runs([made.path, made.path])
    with pytest.raises(RunError, match="has no cell 'vgg19/none'"):
        open_runs([made.path], "vgg19/none")
