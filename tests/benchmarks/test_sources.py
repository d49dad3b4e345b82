"""Cells that other cells are trained on the images of, and trained models by name."""

from pathlib import Path

import pandas as pd
import pytest

from robustbench_tin import bench
from robustbench_tin.benchmarks.cells import measure_cell, train_cell
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.errors import InvalidSettingError, RobustTinError
from robustbench_tin.progress import LinesReporter
from robustbench_tin.training.loop import TrainingFailure
from robustbench_tin.training.loop import train as real_train

SOURCE = "timm:test_resnet"
TARGET = "timm:test_efficientnet"


@pytest.fixture
def fooling(small) -> dict:
    """A network trained on images crafted on another one, which is not measured itself."""
    return {
        **{**small, "models": TARGET, "attacks": "fgsm", "eps": "0.03", "epochs": 2},
        "defenses": f"none,fgsm-static:source={SOURCE},eps=0.03",
    }


@pytest.fixture
def trainings(monkeypatch) -> list[str]:
    """Backbone and defense of each training, in order."""
    done: list[str] = []

    def counting(classifier, split, defense, *args, **options):
        done.append(f"{classifier.backbone} {defense.name}")
        return real_train(classifier, split, defense, *args, **options)

    monkeypatch.setattr(train_cell, "train", counting)
    return done


def test_the_source_is_added_trained_first_and_once(fooling, trainings):
    listener = LinesReporter()
    run = bench(**fooling, seeds="0,1", reporter=listener)
    expected = [f"{SOURCE} none"] * 2 + [f"{TARGET} none"] * 2 + [f"{TARGET} fgsm-static"] * 2
    assert trainings == expected
    assert any(
        line == f"Added to the plan: {SOURCE} with defense none, because a defense makes images on it"
        for line in listener.lines
    )
    assert run.complete
    assert len(run.records) == 6 * 2
    cell = list(run.plan.cells())[-1]
    trained = run.trained(cell)
    assert trained.images == 2 * 48
    assert trained.notes[0].startswith(f"fgsm-static: 48 images moved by eps 0.03 on {SOURCE} added")


def test_a_source_among_the_cells_is_not_added(fooling, trainings):
    listener = LinesReporter()
    bench(**{**fooling, "models": f"{TARGET},{SOURCE}"}, reporter=listener)
    assert trainings.count(f"{SOURCE} none") == 1
    assert not any("Added" in line for line in listener.lines)


def test_a_run_stopped_after_its_source_goes_on(fooling, tmp_path, monkeypatch, trainings):
    undisturbed = bench(**fooling)

    class Stop(BaseException):
        pass

    def stopping(*args, **options):
        raise Stop

    again = {**fooling, "out": tmp_path / "again"}
    with monkeypatch.context() as patch:
        patch.setattr(measure_cell, "measure_from_clean", stopping)
        with pytest.raises(Stop):
            bench(**again)
    trainings.clear()
    resumed = bench(**again)
    assert trainings == [f"{TARGET} none", f"{TARGET} fgsm-static"]
    times = ["seconds", "train_seconds"]
    pd.testing.assert_frame_equal(
        resumed.records.drop(columns=times), undisturbed.records.drop(columns=times)
    )


def test_a_source_that_failed_fails_what_needs_it_and_nothing_else(fooling, monkeypatch):
    def failing(classifier, *args, **options):
        if classifier.backbone == SOURCE:
            raise TrainingFailure("out of luck")
        return real_train(classifier, *args, **options)

    monkeypatch.setattr(train_cell, "train", failing)
    records = bench(**fooling).records
    static = records[records["defense"] != "none"]
    assert static["status"].str.contains(f"its source {SOURCE} [+] none, seed 0 failed: out of luck").all()
    assert (records[(records["model"] == TARGET) & (records["defense"] == "none")]["status"] == "ok").all()


def test_a_cell_of_another_run_and_a_weights_file_are_sources_too(fooling, small, tmp_path, trainings):
    source = bench(**{**small, "attacks": "fgsm", "eps": "0.03", "out": tmp_path / "source"})
    (cell,) = source.plan.cells()
    trainings.clear()
    notes = []
    for index, place in enumerate([source.path, source.path / cell.slug, source.weights_file(cell)]):
        run = bench(
            **{**fooling, "out": tmp_path / str(index), "defenses": f"fgsm-static:source={place},eps=0.03"}
        )
        (target,) = run.plan.cells()
        notes.append(run.trained(target).notes[0].replace(str(place), ""))
        assert len(run.plan.source_files) == 1
    assert trainings == [f"{TARGET} fgsm-static"] * 3
    assert len(set(notes)) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("densnet169", "not a backbone's name, and no trained model at 'densnet169'"),
        ("timm:nothing_such", "unknown backbone"),
    ],
)
def test_an_unknown_source_is_one_line_before_anything_is_trained(fooling, trainings, source, message):
    with pytest.raises(RobustTinError, match=message) as caught:
        bench(**{**fooling, "defenses": f"fgsm-static:source={source}"})
    assert "\n" not in str(caught.value)
    assert trainings == []


def test_a_source_of_other_classes_is_refused(fooling, small):
    source = bench(**{**small, "classes": 2})
    with pytest.raises(InvalidSettingError, match="has 2 classes; expected the data's 3"):
        bench(**{**fooling, "out": Path("unused"), "defenses": f"fgsm-static:source={source.path}"})


def test_a_trained_model_is_found_by_run_cell_and_file(small, tmp_path):
    run = bench(**{**small, "defenses": "none,jpeg", "eps": "0"})
    one, other = run.plan.cells()
    found = find_trained(run.path / other.slug)
    assert (found.backbone, found.classes, found.image_size) == (SOURCE, 3, 16)
    assert found.defense == "jpeg"
    assert find_trained(run.path / "cells" / other.slug) == found
    assert find_trained(run.weights_file(one)).defense == "none"
    with pytest.raises(RobustTinError, match=f"has 2 cells; name one of them .*: {SOURCE}/none/0"):
        find_trained(run.path)
    with pytest.raises(RobustTinError, match="has no cell 'resnet'; known: "):
        find_trained(run.path / "resnet")
    with pytest.raises(RobustTinError, match="no trained model at"):
        find_trained(tmp_path / "nowhere")
    run.weights_file(one).unlink()
    with pytest.raises(RobustTinError):
        find_trained(run.path / one.slug)
