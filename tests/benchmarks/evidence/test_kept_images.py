"""Adversarial images that a run keeps: which, exactly as they were made, checked, and shown again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustbench_tin import bench
from robustbench_tin.benchmarks.cells import measure_cell
from robustbench_tin.benchmarks.evidence import opened_run
from robustbench_tin.benchmarks.evidence.choose import choose_gallery
from robustbench_tin.benchmarks.evidence.opened_run import OpenedRun
from robustbench_tin.benchmarks.evidence.remake import RemadeMeasurement
from robustbench_tin.benchmarks.measurement import blocks
from robustbench_tin.benchmarks.measurement.first_successes import FirstSuccesses, Keep
from robustbench_tin.benchmarks.runs.adversarial_images import AdversarialImages
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.errors import RunError
from robustbench_tin.progress import LinesReporter
from robustbench_tin.threat import ThreatModel

ATTACKS = ("fgsm", "pgd:steps=2", "apgd-ce:criterion=top1,steps=3")
IMAGES, KEPT = 24, 3
LADDER: dict[str, Any] = {"curve": True, "norm": "l2", "eps": [0, 0.06, 0.25, 1.5]}
RANDOM: dict[str, Any] = {"defenses": "random-resize:least=0.8", "eps": [0, 0.4], "epochs": 20}
RUNS = {"plain": {}, "ladder": LADDER, "random": RANDOM}


@pytest.fixture(scope="module", autouse=True)
def _small_batches():
    with pytest.MonkeyPatch.context() as patch:
        for module in (measure_cell, opened_run):
            patch.setattr(module, "evaluation_batch_size", lambda device: 10)
        patch.setattr(blocks, "BLOCK", 20)
        yield


@pytest.fixture(scope="module")
def asked(small_folder: Path) -> dict[str, Any]:
    """The options of a bench of one cell under three attacks."""
    return {
        "models": "timm:test_resnet",
        "data": str(small_folder),
        "attacks": list(ATTACKS),
        "eps": [0, 0.03, 0.1],
        "epochs": 10,
        "device": "cpu",
        "trust": False,
        "deterministic": True,
        "curves": "none",
        "keep_adversarial": KEPT,
    }


@pytest.fixture(scope="module")
def made(asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes each run once; nothing in it may be changed."""
    paths: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in paths:
            out = tmp_path_factory.mktemp("kept") / "run"
            bench(**{**asked, **RUNS[name], "out": out})
            paths[name] = out
        return paths[name]

    return make


def kept_images(path: Path) -> dict[tuple[str, float], AdversarialImages]:
    """The kept images of each attack and eps."""
    run = RunDirectory.load(path)
    (cell,) = run.plan.cells()
    found = {
        (attack, eps): run.adversarial(cell, attack, eps)
        for attack in run.plan.attacks
        for eps in run.plan.attacked_eps
    }
    return {key: images for key, images in found.items() if images is not None}


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.glob("cells/*/measures/*.safetensors")}


def first_successes(path: Path, attack: str, eps: float) -> list[int]:
    """The successes in the order that ``gallery --seed 0`` takes images."""
    run = RunDirectory.load(path)
    (cell,) = run.plan.cells()
    before = run.outcomes(cell, "clean", 0.0)["top1"].to_numpy()
    after = run.outcomes(cell, attack, eps)["top1"].to_numpy()
    order = np.random.default_rng(0).permutation(IMAGES)
    return order[(before & ~after)[order]].tolist()


@pytest.mark.parametrize("name", ["plain", "ladder"])
def test_the_first_successes_are_kept_exactly_as_they_were_made(
    made: Callable[[str], Path], name: str
) -> None:
    path = made(name)
    opened = OpenedRun.open(path)
    (cell,) = opened.cells(None)
    every = kept_images(path)
    assert len(every) == len(opened.plan.attacks) * len(opened.plan.attacked_eps)
    for (attack, eps), kept in every.items():
        assert kept.rows.tolist() == first_successes(path, attack, eps)[:KEPT]
        assert kept.images.dtype == np.float32
        again = RemadeMeasurement(opened, cell, attack, eps)._moved(opened.batches.starts())
        images = torch.cat(list(again.values())).numpy()
        assert np.array_equal(images[kept.rows], kept.images)
    assert any(len(kept) == KEPT for kept in every.values())


@pytest.mark.parametrize("name", ["plain", "ladder", "random"])
def test_each_kept_image_lies_in_the_ball_and_is_taken_for_the_stored_class(
    made: Callable[[str], Path], name: str
) -> None:
    path = made(name)
    opened = OpenedRun.open(path)
    (cell,) = opened.cells(None)
    classes = {key: opened.run.outcomes(cell, *key)["predicted"] for key in kept_images(path)}
    for (attack, eps), kept in kept_images(path).items():
        clean, labels = opened.batches.rows(torch.from_numpy(kept.rows))
        inside = ThreatModel(opened.plan.norm, eps).ball(clean).contains(torch.from_numpy(kept.images))
        assert bool(inside.all())
        shown = RemadeMeasurement(opened, cell, attack, eps)
        assert set(shown.kept) == set(kept.rows.tolist())
        assert shown.not_as_kept == 0
        assert all(classes[attack, eps][row] != label for row, label in zip(kept.rows, labels, strict=True))
    assert all(len(kept) > 0 for kept in kept_images(path).values())


def test_keeping_images_changes_no_record(
    made: Callable[[str], Path], asked: dict[str, Any], tmp_path: Path
) -> None:
    """FGSM is measured before the clean results of a random model are known."""
    without = bench(**{**asked, **RANDOM, "keep_adversarial": 0, "out": tmp_path / "run"})
    records = RunDirectory.load(made("random")).records
    times = ["seconds", "train_seconds"]
    assert records.drop(columns=times).equals(without.records.drop(columns=times))
    assert not files(without.path)


def test_a_random_defense_has_a_gallery(made: Callable[[str], Path]) -> None:
    """An attack that stops on success meets other draws when it is made again."""
    path = made("random")
    kept = kept_images(path)
    attack = next(attack for attack, _ in kept if attack.startswith("apgd"))
    told = LinesReporter()
    shown = choose_gallery(path, attacks=attack, rule="confident", count=IMAGES, reporter=told)
    (selection,) = shown.selections
    assert selection.kept == len(kept[attack, 0.4]) > 0
    images = {image.index: image for image in shown.images}
    for row in kept[attack, 0.4].rows.tolist():
        if row in images:  # not if rounding to 8 bits undoes the attack
            assert images[row].before == images[row].label != images[row].after
    assert set(images) & set(kept[attack, 0.4].rows.tolist())
    left_out = [line for line in told.lines if "left out" in line]
    assert all("random at test time" in line and "another device" not in line for line in left_out)


def test_a_kept_image_is_not_made_again(made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = OpenedRun.open(made("plain"))
    (cell,) = opened.cells(None)
    shown = RemadeMeasurement(opened, cell, "fgsm", 0.1)
    monkeypatch.setattr(RemadeMeasurement, "_moved", None)
    rows = kept_images(made("plain"))["fgsm", 0.1].rows
    assert shown.starts(rows) == []
    assert all(len(shown.row(int(row))[0].clean) == 1 for row in rows)


def test_a_picture_of_a_kept_image_gives_the_prediction_shown(made: Callable[[str], Path]) -> None:
    path = made("plain")
    model = find_trained(path).load("cpu").model.eval()
    rows = set(kept_images(path)["fgsm", 0.1].rows.tolist())
    shown = choose_gallery(path, attacks="fgsm", rule="confident", count=IMAGES).images
    assert rows <= {image.index for image in shown}
    for image in shown:
        pixels = torch.from_numpy(image.adversarial.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            assert int(model(pixels).argmax()) == image.after != image.label


def test_an_image_that_no_longer_gives_its_prediction_is_made_again(
    made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made("plain")
    true = RunDirectory.adversarial

    def changed(self: RunDirectory, *key) -> AdversarialImages | None:
        kept = true(self, *key)
        assert kept is not None
        clean = OpenedRun.open(path).batches.rows(torch.from_numpy(kept.rows))[0].numpy()
        return AdversarialImages(kept.rows, clean, kept.draws)

    monkeypatch.setattr(RunDirectory, "adversarial", changed)
    told = LinesReporter()
    shown = choose_gallery(path, attacks="fgsm", rule="confident", count=IMAGES, reporter=told)
    assert (shown.selections[0].kept, shown.selections[0].not_as_kept) == (0, KEPT)
    assert {image.index for image in shown.images} == set(first_successes(path, "fgsm", 0.1))
    assert any(f"{KEPT} of {KEPT} images that the run keeps do not give" in line for line in told.lines)


def test_a_stop_between_images_and_record_leaves_the_same_files(
    made: Callable[[str], Path], asked: dict[str, Any], tmp_path: Path
) -> None:
    path = Path(shutil.copytree(made("plain"), tmp_path / "run"))
    (record,) = path.glob("cells/*/measures/pgd*@0.1.json")
    record.unlink()
    record.with_suffix(".safetensors").write_bytes(b"of an earlier attempt")
    bench(**{**asked, "out": path})
    assert files(path) == files(made("plain"))


@pytest.mark.parametrize("damage", ["cut", "gone", "exchanged"])
def test_a_damaged_file_is_told_and_made_again(
    made: Callable[[str], Path], asked: dict[str, Any], tmp_path: Path, damage: str
) -> None:
    path = Path(shutil.copytree(made("plain"), tmp_path / "run"))
    file, other = sorted(path.glob("cells/*/measures/fgsm@*.safetensors"))
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "gone":
        file.unlink()
    else:
        shutil.copy(other, file)
    with pytest.raises(RunError, match=f"'{file}' is (damaged|missing)"):
        list(RunDirectory.load(path).iter_records())
    told = LinesReporter()
    bench(**{**asked, "out": path, "reporter": told})
    assert files(path) == files(made("plain"))
    assert any("measured again" in line and file.name in line for line in told.lines)


def test_another_number_is_another_plan(
    made: Callable[[str], Path], asked: dict[str, Any], tmp_path: Path
) -> None:
    path = Path(shutil.copytree(made("plain"), tmp_path / "run"))
    with pytest.raises(RunError, match="keep_adversarial: 3 there, 5 here"):
        bench(**{**asked, "keep_adversarial": 5, "out": path})
    plan = json.loads((path / "plan.json").read_text())
    assert plan["keep_adversarial"] == KEPT


def test_the_first_successes_are_those_of_the_order_however_they_come() -> None:
    keep = Keep.first(1, 50)
    assert keep is not None
    assert keep.candidates == 4
    assert Keep.first(0, 50) is None
    order = np.random.default_rng(0).permutation(50)
    images = torch.arange(50.0).view(50, 1, 1, 1)
    found = FirstSuccesses(keep)
    for rows in torch.randperm(50, generator=torch.Generator().manual_seed(1)).split(7):
        found.offer(rows, images[rows])
    found.offer(torch.from_numpy(order[[1, 9]]), torch.tensor([[[[-1.0]]], [[[-2.0]]]]))
    first = found.found((1, 1, 1))
    assert first.rows.tolist() == order[:4].tolist()
    expected = [float(row) for row in order[:4]]
    expected[1] = -1.0  # offered again
    assert first.images.ravel().tolist() == expected
