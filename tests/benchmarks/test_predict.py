"""Predictions on the disk against the model asked by hand, and crops as a data set."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustbench_tin.benchmarks import crop as crop_module
from robustbench_tin.benchmarks.crop import crop
from robustbench_tin.benchmarks.predict import predict
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.trained_model import find_trained
from robustbench_tin.data import Dataset, open_dataset
from robustbench_tin.data.boxes import crop_and_fill, crop_and_pad, usable
from robustbench_tin.errors import RobustTinError, RunError


@pytest.fixture
def dataset(drawn: Path) -> Dataset:
    return open_dataset(str(drawn))


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def ranked(run: Run, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        model = find_trained(run.path).load("cpu").model.eval()
        return model(torch.from_numpy(np.array(images)).float() / 255).argsort(dim=1, descending=True).numpy()


def ids(row: dict[str, str], prefix: str = "") -> list[str]:
    return [row[f"{prefix}class"], row[f"{prefix}class_2"], row[f"{prefix}class_3"]]


def test_the_hidden_test_images_are_predicted_by_file(
    run: Run, drawn: Path, dataset: Dataset, tmp_path: Path
) -> None:
    made = predict(run.path, out=tmp_path / "p.csv", data=str(drawn))
    rows = read(tmp_path / "p.csv")
    assert made.images == len(rows) == 3
    assert list(rows[0]) == ["file", "class", "class_name", "class_2", "class_3"]
    assert [row["file"] for row in rows] == [f"test/images/test_{i}.JPEG" for i in range(3)]
    for row, labels in zip(rows, ranked(run, dataset.test.images), strict=True):
        assert ids(row) == [dataset.classes[label] for label in labels]
        assert row["class_name"] == dataset.class_names[labels[0]]


def test_labelled_predictions_are_right_as_often_as_the_run_says(
    run: Run, drawn: Path, tmp_path: Path
) -> None:
    predict(run.path, out=tmp_path / "p.csv", split="val", data=str(drawn))
    rows = read(tmp_path / "p.csv")
    right = [row["class"] == row["true_class"] for row in rows]
    assert np.mean(right) == run.records.iloc[0]["top1"]


@pytest.mark.parametrize("fill", [False, True])
def test_with_boxes_each_image_is_predicted_whole_and_cropped(
    run: Run, drawn: Path, dataset: Dataset, tmp_path: Path, fill: bool
) -> None:
    predict(run.path, out=tmp_path / "p.csv", split="val", boxes=True, fill=fill, data=str(drawn))
    rows = read(tmp_path / "p.csv")
    cut = crop_and_fill if fill else crop_and_pad
    for index, row in enumerate(rows):
        one = slice(index, index + 1)
        (whole,) = ranked(run, dataset.val.images[one])
        assert ids(row) == [dataset.classes[label] for label in whole]
        if not usable(dataset.val.boxes[one], 64, 64)[0]:
            assert ids(row, "cropped_") == ["", "", ""]
            continue
        (cropped,) = ranked(run, cut(dataset.val.images[one], dataset.val.boxes[one]))
        assert ids(row, "cropped_") == [dataset.classes[label] for label in cropped]
    assert {row["cropped_class"] == "" for row in rows} == {True, False}


def test_images_from_a_directory_or_a_list_of_paths(run: Run, drawn: Path, tmp_path: Path) -> None:
    folder = drawn / "test"
    predict(run.path, out=tmp_path / "split.csv", data=str(drawn))
    predict(run.path, out=tmp_path / "folder.csv", images=folder, data=str(drawn))
    expected = [ids(row) for row in read(tmp_path / "split.csv")]
    rows = read(tmp_path / "folder.csv")
    assert [row["file"] for row in rows] == [f"images/test_{i}.JPEG" for i in range(3)]
    assert [ids(row) for row in rows] == expected
    listed = drawn / "list.csv"
    for title in ("", "path,why\n", "\ufeff"):
        listed.write_text(title + "test/images/test_2.JPEG,x\n\ntest/images/test_0.JPEG,y\n")
        predict(run.path, out=tmp_path / "list_out.csv", images=listed, data=str(drawn))
        assert [ids(row) for row in read(tmp_path / "list_out.csv")] == [expected[2], expected[0]]


def test_a_broken_image_is_named_or_left_out(run: Run, drawn: Path, tmp_path: Path) -> None:
    Image.new("RGB", (80, 70), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    call = {"out": tmp_path / "p.csv", "images": tmp_path, "data": str(drawn)}
    with pytest.raises(RobustTinError, match=r"b.png' is no JPEG"):
        predict(run.path, **call)
    made = predict(run.path, **call, skip_broken=True)
    assert (made.images, made.left_out) == (1, 1)
    assert [row["file"] for row in read(tmp_path / "p.csv")] == ["a.png"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split": "all"}, "expected train, val, test"),
        ({"boxes": True}, "expected a split with bounding boxes"),
        ({"fill": True}, "got fill without boxes"),
        ({"images": "nowhere"}, "no images at 'nowhere'"),
        ({"classes": 2}, "was trained on 3 classes"),
        ({"data": "demo"}, "got demo with 10 classes"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Run, drawn: Path, tmp_path: Path, changed: dict, message: str
) -> None:
    with pytest.raises(RobustTinError, match=message) as caught:
        predict(run.path, **{"out": tmp_path / "p.csv", "data": str(drawn), **changed})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("fill", [False, True])
def test_crops_are_a_data_set_whose_validation_images_are_untouched(
    drawn: Path, dataset: Dataset, tmp_path: Path, fill: bool
) -> None:
    made = crop(out=tmp_path / "crops", fill=fill, data=str(drawn))
    crops = open_dataset(str(tmp_path / "crops"))
    rows = usable(dataset.train.boxes, 64, 64)
    assert (made.images, made.skipped) == (rows.sum(), (~rows).sum())
    cut = crop_and_fill if fill else crop_and_pad
    assert np.array_equal(crops.train.images, cut(dataset.train.images[rows], dataset.train.boxes[rows]))
    assert crops.train.labels.tolist() == dataset.train.labels[rows].tolist()
    assert np.array_equal(crops.val.images, dataset.val.images)
    assert np.array_equal(crops.val.boxes, dataset.val.boxes)
    with pytest.raises(RunError, match=r"made otherwise \(fill: .* there, .* here\); choose another --out"):
        crop(out=tmp_path / "crops", fill=not fill, data=str(drawn))


def test_crops_that_were_stopped_go_on(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = crop(out=tmp_path / "whole", data=str(drawn))
    monkeypatch.setattr(crop_module, "_BATCH", 2)
    real, asked = crop_module.cropped, []

    def stopping(images: np.ndarray, boxes: np.ndarray, *, fill: bool) -> np.ndarray:
        asked.append(len(images))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(images, boxes, fill=fill)

    monkeypatch.setattr(crop_module, "cropped", stopping)
    with pytest.raises(KeyboardInterrupt):
        crop(out=tmp_path / "crops", data=str(drawn))
    with pytest.raises(RobustTinError):
        open_dataset(str(tmp_path / "crops"))
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "crops").rglob("*.png")}
    assert crop(out=tmp_path / "crops", data=str(drawn)).images == whole.images
    left = whole.images - len(written)
    assert sum(asked[3:]) == left
    assert all(file.stat().st_mtime_ns == then for file, then in written.items())
    one, other = (open_dataset(str(tmp_path / name)) for name in ("whole", "crops"))
    assert np.array_equal(one.train.images, other.train.images)
    assert np.array_equal(one.val.images, other.val.images)
    calls = len(asked)
    assert crop(out=tmp_path / "crops", data=str(drawn)).images == whole.images
    assert len(asked) == calls


def test_images_without_boxes_cannot_be_cropped(small_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RobustTinError, match="has no bounding boxes"):
        crop(out=tmp_path / "crops", data=str(small_folder))
