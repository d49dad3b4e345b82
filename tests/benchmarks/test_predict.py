"""Predictions on the disk against the model asked by hand, and crops as a data set."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_sets import picture, save
from PIL import Image

from robustbench_tin.benchmarks.commands import crop as crop_module
from robustbench_tin.benchmarks.commands.crop import crop
from robustbench_tin.benchmarks.commands.predict import predict
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.data import Dataset, open_dataset
from robustbench_tin.data.boxes import crop_and_fill, crop_and_pad, usable
from robustbench_tin.errors import RobustTinError, RunError
from robustbench_tin.progress import LinesReporter


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
    ranks = [f"{column}_{rank}" for rank in (2, 3) for column in ("class", "confidence")]
    assert list(rows[0]) == ["file", "class", "class_name", "confidence", *ranks]
    assert (made.labelled, made.top1, made.top5) == (0, None, None)
    assert [row["file"] for row in rows] == [f"test/images/test_{i}.JPEG" for i in range(3)]
    for row, labels in zip(rows, ranked(run, dataset.test.images), strict=True):
        assert ids(row) == [dataset.classes[label] for label in labels]
        assert row["class_name"] == dataset.class_names[labels[0]]


def test_labelled_predictions_are_right_as_often_as_the_run_says(
    run: Run, drawn: Path, tmp_path: Path
) -> None:
    made = predict(run.path, out=tmp_path / "p.csv", split="val", data=str(drawn))
    rows = read(tmp_path / "p.csv")
    right = [row["class"] == row["true_class"] for row in rows]
    assert np.mean(right) == run.records.iloc[0]["top1"] == made.top1
    assert (made.labelled, made.top5) == (len(rows), run.records.iloc[0]["top5"])


def test_confidences_are_the_model_s_probabilities(
    run: Run, drawn: Path, dataset: Dataset, tmp_path: Path
) -> None:
    predict(run.path, out=tmp_path / "p.csv", split="val")
    model = find_trained(run.path).load("cpu").model.eval()
    with torch.no_grad():
        chances = model(torch.from_numpy(np.array(dataset.val.images)).float() / 255).softmax(dim=1)
    for row, each in zip(read(tmp_path / "p.csv"), chances, strict=True):
        told = [float(row[name]) for name in ("confidence", "confidence_2", "confidence_3")]
        assert told == pytest.approx(each.sort(descending=True).values.tolist(), abs=1e-3)


def test_without_a_test_split_val_is_predicted(tmp_path: Path, drawn: Path, run: Run) -> None:
    made = predict(run.path, out=tmp_path / "test.csv")
    assert made.split == "test"
    copy = tmp_path / "copy"
    shutil.copytree(drawn, copy)
    shutil.rmtree(copy / "test")
    made = predict(run.path, out=tmp_path / "val.csv", data=str(copy))
    assert made.split == "val"
    assert made.top1 is not None


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


def test_images_of_a_directory_are_those_that_a_data_set_has(run: Run, drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name in (".ipynb_checkpoints/x-checkpoint.png", "a.png", "odd.jpg/b.TIF", "a-b/c.ppm"):
        save(folder / name, picture(len(name)))
    (folder / "._a.png").write_text("Mac OS X")
    (folder / "notes.txt").write_text("no image")
    (folder / "round").symlink_to(folder)
    said = LinesReporter()
    predict(run.path, out=tmp_path / "p.csv", images=folder, data=str(drawn), reporter=said)
    assert [row["file"] for row in read(tmp_path / "p.csv")] == ["a-b/c.ppm", "a.png", "odd.jpg/b.TIF"]
    assert said.lines[-1] == (
        "left out 2 hidden files: ._a.png, .ipynb_checkpoints; 1 link to a folder above it: round;"
        " 1 file without an image's suffix: notes.txt"
    )


@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
def test_what_is_no_regular_file_is_a_broken_image(run: Run, drawn: Path, tmp_path: Path, kind: str) -> None:
    save(tmp_path / "images/a.png", picture(1))
    if kind == "pipe":
        os.mkfifo(tmp_path / "images/b.png")
    else:
        (tmp_path / "images/b.png").symlink_to("/dev/zero" if kind == "device" else "b.png")
    call = {"out": tmp_path / "p.csv", "images": tmp_path / "images", "data": str(drawn)}
    with pytest.raises(RobustTinError, match=r"b.png' cannot be read \(.*--skip-broken"):
        predict(run.path, **call)
    assert predict(run.path, **call, skip_broken=True).left_out == 1


def test_names_in_any_bytes(run: Run, drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    raw = os.fsdecode(b"caf\xe9.png")
    save(folder / raw, picture(1))
    predict(run.path, out=tmp_path / "p.csv", images=folder, data=str(drawn))
    assert [row["file"] for row in read(tmp_path / "p.csv")] == [r"caf\udce9.png"]
    (tmp_path / "list.csv").write_bytes(b"images/caf\xe9.png\n")
    predict(run.path, out=tmp_path / "q.csv", images=tmp_path / "list.csv", data=str(drawn))
    assert len(read(tmp_path / "q.csv")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "file;label\nimages/a.png;cat\nimages/b.png;dog\n",
        "images/a.png\tcat\r\nimages/b.png\tdog\r\n",
        "file\nimages\\a.png\nimages\\b.png\n",
        '"images/a.png";1,5\n"images/b.png";2,5\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_as_other_programs_write_them(
    run: Run, drawn: Path, tmp_path: Path, text: str, encoding: str
) -> None:
    for name in "ab":
        save(tmp_path / f"images/{name}.png", picture(1))
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    made = predict(run.path, out=tmp_path / "p.csv", images=tmp_path / "list.csv", data=str(drawn))
    assert made.images == 2


def test_a_name_with_nul_is_a_broken_image(run: Run, drawn: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(1))
    (tmp_path / "list.csv").write_bytes(b"file\na\0b.png\na.png\n")
    call = {"out": tmp_path / "p.csv", "images": tmp_path / "list.csv", "data": str(drawn)}
    with pytest.raises(RobustTinError, match=r"a\\x00b.png' cannot be read") as caught:
        predict(run.path, **call)
    assert "\0" not in str(caught.value)
    assert predict(run.path, **call, skip_broken=True).left_out == 1


def test_a_broken_image_is_named_or_left_out(run: Run, drawn: Path, tmp_path: Path) -> None:
    Image.new("RGB", (80, 70), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    call = {"out": tmp_path / "p.csv", "images": tmp_path, "data": str(drawn)}
    with pytest.raises(RobustTinError, match=r"b.png' is not a JPEG"):
        predict(run.path, **call)
    made = predict(run.path, **call, skip_broken=True)
    assert (made.images, made.left_out) == (1, 1)
    assert [row["file"] for row in read(tmp_path / "p.csv")] == ["a.png"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split": "all"}, "expected train, val, test"),
        ({"boxes": True}, "expected a split with some"),
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
    with pytest.raises(
        RunError, match=r"made with other settings \(fill: .* there, .* here\); choose another --out"
    ):
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
