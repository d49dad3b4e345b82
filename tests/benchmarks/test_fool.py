"""Fooling images on the disk: inside the ball as they are read back, with a true manifest, resumable."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbench_tin import bench
from robustbench_tin.benchmarks.commands import fool as fool_module
from robustbench_tin.benchmarks.commands.fool import fool
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.data import Dataset, open_dataset
from robustbench_tin.data import export as export_module
from robustbench_tin.errors import RobustTinError, RunError


@pytest.fixture
def original(drawn: Path) -> Dataset:
    return open_dataset(str(drawn))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fool_module, "evaluation_batch_size", lambda device: 4)


def answers(run: Run, images: np.ndarray) -> list[int]:
    with torch.no_grad():
        model = find_trained(run.path).load("cpu").model.eval()
        return model(torch.from_numpy(np.array(images)).float() / 255).argmax(dim=1).tolist()


def manifest(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("norm", "eps", "attack"),
    [
        ("linf", 0.03, "fgsm"),
        ("linf", 8 / 255, "pgd:steps=3"),
        ("l2", 1.0, "fgsm"),
        ("l2", 0.5, "pgd:steps=3"),
        ("linf", 0.05, "square:queries=20"),
    ],
)
def test_read_back_every_image_is_inside_the_ball(
    run: Run, drawn: Path, original: Dataset, tmp_path: Path, norm: str, eps: float, attack: str
) -> None:
    out = tmp_path / "out"
    made = fool(run.path, out=out, eps=eps, norm=norm, attack=attack, split="train,val", data=str(drawn))
    read = open_dataset(str(out))
    fooled = 0
    for name in ("train", "val"):
        before, after = getattr(original, name), getattr(read, name)
        assert after.labels.tolist() == before.labels.tolist()
        assert np.array_equal(after.boxes, before.boxes)
        change = (after.images.astype(np.float64) - before.images) / 255
        size = np.abs(change) if norm == "linf" else np.sqrt((change**2).sum(axis=(1, 2, 3)))
        assert size.max() <= eps * (1 + 1e-6)
        assert size.max() > 0.7 * eps or attack.startswith("square")
        fooled += sum(np.array(answers(run, after.images)) != after.labels)
    assert (made.images, made.fooled) == (27, fooled)


def test_the_manifest_tells_of_each_image_what_is_true_of_its_file(
    run: Run, drawn: Path, original: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    made = fool(run.path, out=out, eps=0.1, data=str(drawn))
    read = open_dataset(str(out))
    assert np.array_equal(read.val.images, original.val.images), "the other split is as it was"
    rows = manifest(out)
    assert len(rows) == 27
    train = {row["file"]: row for row in rows if row["split"] == "train"}
    for name, label, answer, before in zip(
        read.train.ids, read.train.labels, answers(run, read.train.images), original.train.ids, strict=True
    ):
        assert train[name] == {
            "split": "train",
            "file": name,
            "original": before,
            "class": read.classes[label],
            "label": str(label),
            "answer": str(answer),
            "fooled": str(int(answer != label)),
        }
    assert all(row["answer"] == row["fooled"] == "" for row in rows if row["split"] == "val")
    said = json.loads((out / "manifest.json").read_text())
    assert (said["attack"], said["norm"], said["eps"], said["splits"]) == ("fgsm", "linf", 0.1, "train")
    assert said["backbone"] == "timm:test_resnet"
    assert (said["images"], said["fooled"]) == (15, made.fooled)
    assert made.fooled == sum(row["fooled"] == "1" for row in rows) > 0


class Stop(BaseException):
    """Ends a call as a kill would."""


@pytest.mark.parametrize("written", [0, 1, 5, 15, 20])
def test_stopped_anywhere_it_goes_on_to_the_same_files(
    run: Run, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    call = {"eps": 0.05, "attack": "pgd:steps=2", "data": str(drawn)}
    fool(run.path, out=tmp_path / "whole", **call)
    out = tmp_path / "stopped"
    real, count = export_module.Image.Image.save, 0

    def stopping(image, path, *args, **options) -> None:
        nonlocal count
        count += 1
        if count > written:
            Path(path).write_bytes(b"half an image")
            raise Stop
        real(image, path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(export_module.Image.Image, "save", stopping)
        with pytest.raises(Stop):
            fool(run.path, out=out, **call)
    with pytest.raises(RobustTinError):
        open_dataset(str(out))
    made: list[int] = []
    real_batches = fool_module.adversarial_batches

    def counting(*args, **options):
        for batch in real_batches(*args, **options):
            made.append(batch.start)
            yield batch

    monkeypatch.setattr(fool_module, "adversarial_batches", counting)
    fool(run.path, out=out, **call)
    done = [start for start in (0, 4, 8, 12) if start not in made]
    assert len(made) == len(set(made))
    # Threads: of the batches that were written in full, those are done that were so before the stop.
    assert bool(done) == (written >= 15) or written == 5
    assert contents(out) == contents(tmp_path / "whole")


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_complete_directory_is_not_made_again(
    run: Run, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fool(run.path, out=tmp_path / "out", data=str(drawn))
    monkeypatch.setattr(fool_module, "adversarial_batches", None)
    assert fool(run.path, out=tmp_path / "out", data=str(drawn)) == first


def test_the_same_model_by_another_path_goes_on(
    run: Run, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fool(run.path, out=tmp_path / "out", data=str(drawn))
    monkeypatch.chdir(run.path.parent)
    assert fool(run.path.name, out=tmp_path / "out", data=str(drawn)) == first


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"eps": 0.04}, "made with other settings .eps: 0.03 there, 0.04 here"),
        ({"split": "test"}, "expected train, val or train,val"),
        ({"attack": "pgdd"}, "did you mean 'pgd'"),
        ({"norm": "l1"}, "expected linf or l2"),
        ({"classes": 2}, "with 2 classes, but .* was trained on 3 classes of tiny-imagenet"),
        ({"data": "nowhere"}, "there is no path"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Run, drawn: Path, tmp_path: Path, changed: dict, message: str
) -> None:
    call = {"out": tmp_path / "out", "data": str(drawn)}
    fool(run.path, **call)
    before = contents(tmp_path / "out")
    with pytest.raises(RobustTinError, match=message) as caught:
        fool(run.path, **{**call, **changed})
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_a_directory_of_something_else_is_left_alone(run: Run, drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("do not lose me")
    with pytest.raises(RunError, match="not empty"):
        fool(run.path, out=tmp_path, data=str(drawn))
    assert contents(tmp_path) == {"thesis.tex": b"do not lose me"}


def test_the_images_are_a_data_set_to_train_on(run: Run, drawn: Path, tmp_path: Path) -> None:
    fool(run.path, out=tmp_path / "out", data=str(drawn))
    trained = bench(
        models="timm:test_resnet",
        defenses="bbox-crop",
        data=str(tmp_path / "out"),
        attacks="fgsm",
        eps="0",
        epochs=1,
        device="cpu",
        out=tmp_path / "run",
    )
    assert trained.complete
