"""Galleries and saliency results as files: reading gives back the same results."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from robustbench_tin.benchmarks.evidence.choices import Rule
from robustbench_tin.benchmarks.evidence.gallery import Gallery, GalleryImage, GallerySelection, magnified
from robustbench_tin.benchmarks.evidence.gallery_files import FACTS, read_gallery, write_gallery
from robustbench_tin.benchmarks.evidence.saliency import (
    SaliencyImage,
    SaliencyShare,
    box_mask,
    mean_interval,
    share_inside,
)
from robustbench_tin.benchmarks.evidence.saliency_files import (
    ImageShare,
    SaliencyResult,
    read_saliency,
    read_saliency_images,
    write_saliency,
)
from robustbench_tin.errors import RunError

DRAWN = np.random.default_rng(0)
CLEAN = DRAWN.integers(0, 256, (8, 8, 3), dtype=np.uint8)
MOVED = np.clip(CLEAN.astype(int) + DRAWN.integers(-3, 4, CLEAN.shape), 0, 255).astype(np.uint8)


def image() -> GalleryImage:
    difference, factor = magnified(CLEAN, MOVED)
    facts = ("toy/none/0", "fgsm", 0.01, "linf", 5, "random", 1, 1, 0.75, 0, 0.5, 3 / 255)
    return GalleryImage(*facts, CLEAN, difference, MOVED, factor)


def gallery() -> Gallery:
    selection = GallerySelection("toy/none/0", "fgsm", 0.01, 64, 50, 0, 2)
    return Gallery(Rule.random, 3, ("a", "b"), [image()], [selection])


def same(one: object, other: object) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name), equal_nan=field.name == "share")
        for field in fields(one)  # type: ignore[arg-type]
    )


def test_a_gallery_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_gallery(gallery(), tmp_path)
    read = read_gallery(tmp_path)
    assert read is not None
    assert same(read.images[0], image())
    assert tuple(read.selections) == tuple(gallery().selections)
    assert (read.rule, read.seed, read.classes) == (Rule.random, 3, ("a", "b"))


def test_without_a_gallery_there_is_none(tmp_path: Path) -> None:
    assert read_gallery(tmp_path) is None


@pytest.mark.parametrize(("field", "value"), [("rule", "by hand"), ("seed", "x")])
def test_damaged_facts_are_refused(tmp_path: Path, field: str, value: str) -> None:
    write_gallery(gallery(), tmp_path)
    facts = json.loads((tmp_path / FACTS).read_text())
    (tmp_path / FACTS).write_text(json.dumps({**facts, field: value}))
    with pytest.raises(RunError, match=FACTS):
        read_gallery(tmp_path)


def test_a_damaged_picture_is_refused(tmp_path: Path) -> None:
    write_gallery(gallery(), tmp_path)
    next(tmp_path.glob("*-adversarial.png")).write_bytes(b"no picture")
    with pytest.raises(RunError, match="damaged"):
        read_gallery(tmp_path)


def test_a_picture_is_looked_for_in_the_directory_alone(tmp_path: Path) -> None:
    write_gallery(gallery(), tmp_path / "gallery")
    facts = json.loads((tmp_path / "gallery" / FACTS).read_text())
    there = tmp_path / "elsewhere.png"
    (tmp_path / "gallery" / facts["images"][0]["clean"]).rename(there)
    facts["images"][0]["clean"] = str(there)
    (tmp_path / "gallery" / FACTS).write_text(json.dumps(facts))
    with pytest.raises(RunError, match="cannot read"):
        read_gallery(tmp_path / "gallery")


def test_the_perturbation_is_magnified_as_far_as_it_fits() -> None:
    shown, factor = magnified(np.array([100, 100, 100], np.uint8), np.array([97, 100, 103], np.uint8))
    assert factor == 42
    assert shown.tolist() == [128 - 126, 128, 128 + 126]
    equal, factor = magnified(CLEAN, CLEAN)
    assert factor == 1
    assert (equal == 128).all()
    assert magnified(np.array([0], np.uint8), np.array([255], np.uint8))[0].tolist() == [255]


def test_the_share_counts_the_corners_of_the_box() -> None:
    attribution = np.zeros((4, 6))
    attribution[1, 2] = attribution[2, 4] = 1.0
    attribution[0, 0] = 2.0
    assert share_inside(attribution, (2, 1, 4, 2)) == 0.5
    assert share_inside(attribution, (2, 1, 3, 2)) == 0.25
    assert box_mask((2, 1, 4, 2), 4, 6).sum() == 6
    assert math.isnan(share_inside(np.zeros((4, 6)), (2, 1, 4, 2)))


def test_the_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).random(37)
    mean, low, high = mean_interval(values.tolist())
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert mean_interval([0.5]) == (0.5, -math.inf, math.inf)


def test_saliency_is_read_as_it_was_written(tmp_path: Path) -> None:
    share = SaliencyShare("toy/none/0", "saliency", 2, 0.5, 0.25, 0.75, chance=0.5)
    shown = SaliencyImage(
        "toy/none/0", "saliency", 4, 1, "clean", CLEAN, MOVED[..., 0], (1, 1, 5, 6), 0.5, predicted=1
    )
    boxless = replace(shown, index=7, box=None, share=float("nan"))
    result = SaliencyResult(
        cell="toy/none/0",
        method="saliency",
        settings={"count": 2},
        weights_digest="0",
        classes=("a", "b"),
        shares=(share,),
        image_shares=(ImageShare(index=4, kind="clean", predicted=1, share=0.5, chance=0.5),),
    )
    assert read_saliency(tmp_path) == []
    write_saliency(tmp_path, result, [shown, boxless])
    assert read_saliency(tmp_path) == [share]
    read = read_saliency_images(tmp_path)
    assert [same(*pair) for pair in zip(read, [shown, boxless], strict=True)] == [True, True]
