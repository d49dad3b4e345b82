"""The demo set: the same bytes everywhere, sets that grow, boxes that hold their object."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from robustbench_tin.data.base import Dataset, Split
from robustbench_tin.data.demo.demo_set import BANNER, TRAIN_PER_CLASS, VAL_PER_CLASS, Demo, draw_split
from robustbench_tin.data.demo.drawing import SIZE, Dice, coverage, wave
from robustbench_tin.data.demo.scenes import box_of, draw_scene
from robustbench_tin.data.demo.things import THINGS
from robustbench_tin.data.source import OpenOptions

# Change these only together with the drawing: results of other versions are then of another set.
FINGERPRINT = "6dc7f867e99777e6"
PIXELS = "2e42b7092e5259032595b72c91adfde90a422e1ff942abfbea102f5851281208"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Demo().open(OpenOptions())


def test_bytes_are_the_same_on_every_machine(dataset: Dataset) -> None:
    assert hashlib.sha256(dataset.val.images.tobytes()).hexdigest() == PIXELS
    assert dataset.fingerprint == FINGERPRINT


def test_dice_are_numpys_frozen_stream() -> None:
    dice = Dice(0, 1, 2)
    drawn = [dice.below(1000) for _ in range(4)]
    expected = np.random.RandomState([0, 1, 2]).random_sample(4)
    assert drawn == [int(1000 * number) for number in expected]


@pytest.mark.parametrize("split", ["train", "val"])
def test_splits_are_plain_and_balanced(dataset: Dataset, split: str) -> None:
    part: Split = getattr(dataset, split)
    per_class = {"train": TRAIN_PER_CLASS, "val": VAL_PER_CLASS}[split]
    assert part.images.dtype == np.uint8
    assert part.images.shape == (per_class * len(THINGS), 3, SIZE, SIZE)
    assert part.images.flags.c_contiguous
    assert part.labels.dtype == np.int64
    assert np.bincount(part.labels).tolist() == [per_class] * len(THINGS)
    assert part.boxes is not None
    assert part.boxes.dtype == np.int32
    assert part.ids is not None
    assert len(set(part.ids)) == len(part)


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_lie_inside_and_have_an_area(dataset: Dataset, split: str) -> None:
    boxes = getattr(dataset, split).boxes
    assert boxes.min() >= 0
    assert boxes.max() < SIZE
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 8


def test_boxes_are_the_objects_own(dataset: Dataset) -> None:
    assert dataset.train.boxes is not None
    for index in range(60):
        image, mask = draw_scene(0, 0, index, index % len(THINGS))
        np.testing.assert_array_equal(image, dataset.train.images[index])
        x0, y0, x1, y1 = dataset.train.boxes[index]
        inside = mask[y0 : y1 + 1, x0 : x1 + 1]
        assert inside.sum() == mask.sum() > 0
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.any()


def test_box_of_a_single_pixel() -> None:
    mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
    mask[3, 5] = True
    assert box_of(mask) == (5, 3, 5, 3)


def test_a_larger_set_only_adds_images(dataset: Dataset) -> None:
    assert dataset.train.boxes is not None
    few = draw_split("train", 23)
    np.testing.assert_array_equal(few.images, dataset.train.images[:23])
    np.testing.assert_array_equal(few.boxes, dataset.train.boxes[:23])
    np.testing.assert_array_equal(few.labels, dataset.train.labels[:23])


def test_no_two_images_are_equal(dataset: Dataset) -> None:
    prints = {image.tobytes() for part in (dataset.train, dataset.val) for image in part.images}
    assert len(prints) == len(dataset.train) + len(dataset.val)


def test_another_seed_draws_another_set(dataset: Dataset) -> None:
    assert not np.array_equal(draw_split("val", 3, seed=1).images, dataset.val.images[:3])


def test_every_thing_fits_its_unit_circle() -> None:
    axis = np.linspace(-1.5, 1.5, 301)
    u, v = np.meshgrid(axis, axis)
    outside = u * u + v * v > 1.02 * 1.02
    for thing in THINGS:
        form = thing.form(u, v)
        assert (form[outside] > 0).all(), thing.name
        assert 0.1 < (form < 0).mean() * 9 / np.pi < 1.0, thing.name
        texture = thing.texture(u, v)
        assert -1.0 <= texture.min() < texture.max() <= 1.0, thing.name


def test_things_differ_in_form_and_texture() -> None:
    axis = np.linspace(-1.0, 1.0, 101)
    u, v = np.meshgrid(axis, axis)
    forms = [thing.form(u, v) < 0 for thing in THINGS]
    textures = [thing.texture(6 * u, 6 * v) for thing in THINGS]
    for first in range(len(THINGS)):
        for second in range(first):
            either, both = forms[first] | forms[second], forms[first] & forms[second]
            assert both.sum() < 0.75 * either.sum(), (THINGS[first].name, THINGS[second].name)
            assert np.abs(textures[first] - textures[second]).mean() > 0.1


def test_the_note_says_what_it_is(dataset: Dataset) -> None:
    assert dataset.name == "demo"
    assert dataset.banner == BANNER
    assert "not photographs" in BANNER
    assert dataset.class_names == tuple(thing.name for thing in THINGS)


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    draw_split("val", 101, options=OpenOptions(progress=lambda *step: told.append(step)))
    assert [step[1:] for step in told] == [(0, 101), (100, 101)]


def test_coverage_and_wave() -> None:
    np.testing.assert_array_equal(
        coverage(np.array([-2.0, -0.5, 0.0, 0.25, 3.0])), [1.0, 1.0, 0.5, 0.25, 0.0]
    )
    np.testing.assert_array_equal(wave(np.array([0.0, 0.25, 0.5, 1.0, -0.5])), [-1.0, 0.0, 1.0, -1.0, 1.0])
