"""Galleries: images chosen by a rule, made again, whose pictures give the predictions shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from robustbench_tin import bench
from robustbench_tin.benchmarks.cells import measure_cell
from robustbench_tin.benchmarks.commands.gallery import gallery
from robustbench_tin.benchmarks.evidence import opened_run, remake
from robustbench_tin.benchmarks.evidence.choices import Rule
from robustbench_tin.benchmarks.evidence.choose import choose_gallery
from robustbench_tin.benchmarks.evidence.gallery import Gallery, GalleryImage, distance
from robustbench_tin.benchmarks.evidence.gallery_files import read_gallery
from robustbench_tin.benchmarks.evidence.opened_run import OpenedRun
from robustbench_tin.benchmarks.evidence.pictures import read_png
from robustbench_tin.benchmarks.evidence.remake import RemadeMeasurement
from robustbench_tin.benchmarks.runs.minimum_eps import minimum_eps
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.cli.app import app
from robustbench_tin.errors import RobustTinError, RunError
from robustbench_tin.progress import LinesReporter

ATTACKS = ("fgsm", "pgd:steps=2", "apgd-ce:criterion=top1,steps=3")
IMAGES = 24
TINY, LARGE = 0.002, 0.1
RUNGS = (0.02, 0.06, LARGE)


@pytest.fixture(scope="module", autouse=True)
def _small_batches():
    with pytest.MonkeyPatch.context() as patch:
        for module in (measure_cell, opened_run):
            patch.setattr(module, "evaluation_batch_size", lambda device: 10)
        yield


@pytest.fixture(scope="module")
def small_run(_small_batches: None, small_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """Makes a run of one cell under three attacks, in several batches."""

    def make(eps: Sequence[float], **options) -> Path:
        out = tmp_path_factory.mktemp("gallery") / "run"
        bench(
            models="timm:test_resnet",
            data=str(small_folder),
            attacks=list(ATTACKS),
            eps=[0, *eps],
            epochs=10,
            device="cpu",
            trust=False,
            deterministic=True,
            out=out,
            **options,
        )
        return out

    return make


@pytest.fixture(scope="module")
def path(small_run: Callable[..., Path]) -> Path:
    """A run of which nothing may be changed."""
    return small_run([TINY, LARGE])


@pytest.fixture(scope="module")
def ladder(small_run: Callable[..., Path]) -> Path:
    """The same of a run with ``--curve``."""
    return small_run(RUNGS, curve=True)


@pytest.fixture(scope="module")
def opened(path: Path) -> OpenedRun:
    return OpenedRun.open(path)


def measurement(opened: OpenedRun, attack: str, eps: float = LARGE) -> RemadeMeasurement:
    (cell,) = opened.cells(None)
    made = RemadeMeasurement(opened, cell, opened.plan.attack(attack).spec, eps)
    made.make(opened.batches.starts())
    return made


def chosen(path: Path, rule: str, **options) -> Gallery:
    return choose_gallery(path, **{"attacks": "fgsm", "count": IMAGES, "rule": rule, **options})


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("eps", [TINY, LARGE])
def test_every_image_made_again_gives_its_stored_result(opened: OpenedRun, attack: str, eps: float) -> None:
    made = measurement(opened, attack, eps)
    assert made.remade == IMAGES
    assert made.not_reproduced == 0
    if eps == LARGE:
        assert 0 < made.stored.sum() < made.stored_clean.sum()


def test_a_picture_that_is_loaded_gives_the_prediction_shown(path: Path, tmp_path: Path) -> None:
    made = gallery(path, out=tmp_path, count=4)
    assert len(made.gallery.images) == 4 * len(ATTACKS)
    model = find_trained(path).load("cpu").model.eval()
    facts = json.loads((tmp_path / "gallery.json").read_text())["images"]
    for image in facts:
        for picture, answer in (("clean", "before"), ("adversarial", "after")):
            pixels = torch.from_numpy(read_png(tmp_path / image[picture]).copy())
            with torch.inference_mode():
                shares = model(pixels.permute(2, 0, 1)[None].float() / 255).softmax(dim=1)[0]
            assert int(shares.argmax()) == image[answer]
            assert float(shares.max()) == pytest.approx(image[f"{answer}_confidence"], abs=1e-4)
    assert read_gallery(tmp_path) is not None


def test_adversarial_images_lie_in_the_ball_around_the_data(path: Path, opened: OpenedRun) -> None:
    for image in chosen(path, "random", attacks="*").images:
        assert np.array_equal(image.clean, opened.dataset.val.images[image.index].transpose(1, 2, 0))
        assert image.label == opened.dataset.val.labels[image.index]
        assert image.distance == distance(image.clean, image.adversarial, "linf") <= LARGE
        difference = image.adversarial.astype(int) - image.clean
        assert np.array_equal(image.perturbation, 128 + image.magnified_by * difference)


def test_random_images_are_those_of_the_seed_for_each_attack(path: Path) -> None:
    images = chosen(path, "random", attacks="*", count=5, seed=3).images
    by_attack: dict[str, list[int]] = {}
    for image in images:
        by_attack.setdefault(image.attack, []).append(image.index)
    expected = np.random.default_rng(3).permutation(IMAGES)[:5].tolist()
    assert list(by_attack.values()) == [expected] * len(ATTACKS)


def test_survivors_are_right_and_successes_are_wrong(path: Path, opened: OpenedRun) -> None:
    stored = measurement(opened, "fgsm").stored
    survivors = chosen(path, "survivors").images
    assert {image.index for image in survivors} == set(np.flatnonzero(stored))
    assert all(image.after == image.label for image in survivors)
    successes = chosen(path, "confident").images
    assert successes
    assert all(image.before == image.label != image.after for image in successes)


def test_the_most_confident_successes_come_first(path: Path) -> None:
    every = chosen(path, "confident").images
    confidence = [image.after_confidence for image in every]
    assert confidence == sorted(confidence, reverse=True)
    first = chosen(path, "confident", count=2)
    assert [image.index for image in first.images] == [image.index for image in every[:2]]
    assert first.selections[0].candidates == len(every)


def test_the_smallest_margins_come_first(path: Path, opened: OpenedRun) -> None:
    images = chosen(path, "smallest-margin").images
    made = measurement(opened, "fgsm")

    def margin(image: GalleryImage) -> float:
        batch, row = made.row(image.index)
        logits = batch.logits[row].numpy()
        return abs(logits[image.label] - np.delete(logits, image.label).max())

    margins = [margin(image) for image in images]
    assert margins == sorted(margins)
    assert len(images) == made.stored_clean.sum()


def test_images_that_rounding_changes_are_left_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded to the clean image, no success is left."""
    stored = measurement(OpenedRun.open(path), "fgsm")
    successes = stored.stored_clean & ~stored.stored
    monkeypatch.setattr(remake, "to_8bit", lambda moved, ball: ball.images)
    told = LinesReporter()
    found = chosen(path, "random", reporter=told)
    assert found.selections[0].lost_to_rounding == successes.sum() > 0
    assert {image.index for image in found.images} == set(np.flatnonzero(~successes))
    assert any(f"{successes.sum()} images are left out because their 8-bit" in line for line in told.lines)


def test_results_that_are_not_reproduced_are_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = measurement(OpenedRun.open(path), "fgsm").stored
    changed = true.copy()
    changed[[2, 7]] = ~changed[[2, 7]]
    monkeypatch.setattr(RemadeMeasurement, "stored", changed)
    told = LinesReporter()
    found = chosen(path, "random", reporter=told)
    assert found.selections[0].not_reproduced == 2
    assert {image.index for image in found.images}.isdisjoint({2, 7})
    assert any("2 of 24" in line and "do not give their stored result" in line for line in told.lines)
    monkeypatch.setattr(RemadeMeasurement, "stored", ~true)
    with pytest.raises(RunError, match="24 of 24 remade images do not give their stored result"):
        chosen(path, "random")


@pytest.mark.parametrize("attack", ATTACKS)
def test_images_of_a_ladder_are_those_of_the_rung_at_which_they_succeeded(ladder: Path, attack: str) -> None:
    opened = OpenedRun.open(ladder)
    made = measurement(opened, attack)
    assert made.remade == IMAGES
    assert made.not_reproduced == 0
    smallest = minimum_eps(opened.run, made.cell, made.spec)
    assert (smallest[smallest > 0] < LARGE).sum() > 0  # some are carried
    for index, eps in enumerate(smallest):
        batch, row = made.row(index)
        clean, adversarial = (each[row].numpy() for each in (batch.clean, batch.adversarial))
        # The image itself lies in the ball of its rung, its 8-bit version at most half a level further out.
        assert distance(clean, adversarial, "linf") <= min(eps, LARGE) + 0.5 / 255
        assert eps > 0 or np.array_equal(clean, adversarial)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"eps": "0.5"}, r"eps got 0.5, but run .* does not measure it; expected 0.002 or 0.1"),
        ({"attacks": "square"}, r"attack got 'square', .* expected fgsm, pgd:steps=2"),
        ({"rule": "by hand"}, "rule got 'by hand'; expected random, smallest-margin, confident, survivors"),
        ({"count": 0}, "count got 0; expected 1 or more"),
        ({"cells": "vgg16/*"}, "has no cell 'vgg16/.'"),
        ({"eval_images": 6}, "6 evaluated images .* give the --data"),
        ({"attacks": "apgd*", "rule": "survivors"}, "has no measurement left to show"),
    ],
)
def test_what_does_not_fit_the_run_is_one_line(path: Path, options: dict, line: str) -> None:
    with pytest.raises(RobustTinError, match=line):
        choose_gallery(path, **options)


def test_without_a_budget_there_is_nothing_to_show(path: Path, run) -> None:
    with pytest.raises(RobustTinError, match="has no eps above 0"):
        choose_gallery(run.path)


def test_the_command_writes_a_page_and_replaces_its_own(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "run"))
    for count in (3, 2):
        result = CliRunner().invoke(app, ["gallery", str(copy), "--attack", "fgsm", "--count", str(count)])
        assert result.exit_code == 0, result.output
        assert f"{count} images, chosen by the rule random" in result.output
        page = (copy / "gallery" / "gallery.html").read_text()
        assert page.count("<figure") == count
        assert len(list((copy / "gallery").glob("*.png"))) == 3 * count
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("kept")
    with pytest.raises(RunError, match="is not a gallery"):
        gallery(copy, out=elsewhere, attacks="fgsm")


def test_names_are_escaped_on_the_page(tmp_path: Path) -> None:
    from robustbench_tin.benchmarks.evidence.contact_sheet import write_contact_sheet

    pixels = np.zeros((4, 4, 3), np.uint8)
    facts = ("m/<b>/0", "fgsm", 0.03, "l2", 5, "random", 0, 0, 0.75, 1, 0.5, 0.25)
    image = GalleryImage(*facts, pixels, pixels, pixels, 1.0)
    shown = Gallery(Rule.random, 0, ("<script>alert(1)</script>, other", "b"), [image], [])
    shown.selections.append(_selection(image))  # type: ignore[attr-defined]
    page = write_contact_sheet(shown, tmp_path).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "m/&lt;b&gt;/0" in page


def _selection(image: GalleryImage):
    from robustbench_tin.benchmarks.evidence.gallery import GallerySelection

    return GallerySelection(image.cell, image.attack, image.eps, 1, 1, 0, 0)
