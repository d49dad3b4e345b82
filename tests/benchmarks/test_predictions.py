"""Runs keep the predicted class and the true label of each image."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from robustbench_tin import bench, evaluate
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.files import DamagedError
from robustbench_tin.benchmarks.runs.image_labels import LABELS_FILE, read_labels
from robustbench_tin.testing.toy import build_toy_model


@pytest.fixture(scope="module")
def measured(small_options, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("predictions") / "run"
    return bench(**{**small_options(out), "attacks": "fgsm,pgd:steps=2,fast", "worst_case": True})


def test_an_image_is_right_exactly_if_its_prediction_is_its_label(measured: Run) -> None:
    known = read_labels(measured.path, measured.plan)
    assert known.classes == ("blue", "green", "red")
    labels = np.array(known.labels)
    assert np.bincount(labels).tolist() == [8, 8, 8]
    (cell,) = measured.plan.cells()
    wrong = 0
    for record in measured.iter_records():
        results = measured.outcomes(cell, record.attack, record.eps)
        if record.attack == "worst-case":
            assert "predicted" not in results
            continue
        right = results["predicted"].to_numpy() == labels
        assert (right == results["top1"]).all(), record.attack
        wrong += int((~right).sum())
    assert wrong > 0


def test_results_of_an_earlier_version_have_no_predictions(measured: Run, tmp_path: Path) -> None:
    """Its files hold the hits alone, and its records no digest."""
    (cell,) = measured.plan.cells()
    file = next((measured.path / "cells" / cell.slug / "measures").glob("clean*.parquet"))
    record = measured.record(cell, "clean", 0.0).model_copy(update={"results_digest": ""})
    earlier = tmp_path / "earlier.parquet"
    parquet.write_table(parquet.read_table(file).drop(["predicted"]), earlier)
    assert list(measured.files.read_results(earlier, record)) == ["top1", "top5"]
    other = tmp_path / "other.parquet"
    pd.read_parquet(file).assign(predicted=np.int32(3)).to_parquet(other)
    with pytest.raises(DamagedError, match="predictions outside the 3 classes"):
        measured.files.read_results(other, record)


def test_labels_of_another_run_are_refused(measured: Run, tmp_path: Path) -> None:
    assert read_labels(tmp_path, measured.plan) is None
    text = (measured.path / LABELS_FILE).read_text()
    (tmp_path / LABELS_FILE).write_text(text)
    with pytest.raises(DamagedError, match="another run"):
        read_labels(tmp_path, measured.plan.model_copy(update={"seeds": (1,)}))
    (tmp_path / LABELS_FILE).write_text(text.replace('"labels":[', '"labels":[7,'))
    with pytest.raises(DamagedError, match="another run"):
        read_labels(tmp_path, measured.plan)


def test_a_saved_evaluation_has_its_labels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((6, 3, 16, 16), dtype=np.float32)
    found = evaluate(build_toy_model(), images, [0, 1, 2, 0, 1, 2], attacks="fgsm", eps=0.01)
    run = Run.load(found.save(tmp_path / "run"))
    assert read_labels(run.path, run.plan).labels == (0, 1, 2, 0, 1, 2)
