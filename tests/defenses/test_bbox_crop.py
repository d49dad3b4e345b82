"""The training set that bbox-crop makes: how many images, which, and with which labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import TOY_CLASSES, build_toy_model, draw_toy_images

from robustbench_tin.data.base import Split
from robustbench_tin.data.boxes import crop_and_pad
from robustbench_tin.defenses import parse_defense
from robustbench_tin.runtime import Runtime
from robustbench_tin.training.context import Context
from robustbench_tin.training.loop import Recipe, train

BOXES = [
    (2, 3, 12, 10),
    (5, 5, 5, 9),  # no width
    (0, 0, 15, 15),
    (-1, -1, -1, -1),  # none
    (9, 9, 3, 3),  # corners exchanged
    (14, 2, 40, 8),  # reaches out of the image
    (20, 20, 30, 30),  # outside of it
]


@pytest.fixture
def split() -> Split:
    images, labels = draw_toy_images(len(BOXES), seed=5)
    return Split((images * 255).round().byte().numpy(), labels.numpy(), np.array(BOXES, np.int32))


def prepared(split: Split) -> tuple[Split, list[str]]:
    notes: list[str] = []
    context = Context(torch.Generator(), torch.device("cpu"), TOY_CLASSES, epochs=1, note=notes.append)
    return parse_defense("bbox-crop").prepare(split, context), notes


def test_originals_come_first_then_the_crops_of_usable_boxes(split: Split) -> None:
    result, notes = prepared(split)
    usable = [0, 2, 5]
    assert np.array_equal(result.images[:7], split.images)
    assert np.array_equal(result.images[7:], crop_and_pad(split.images[usable], split.boxes[usable]))
    assert result.labels.tolist() == [*split.labels, *split.labels[usable]]
    assert notes == ["bbox-crop: 3 crops added, 3 degenerate boxes skipped"]
    assert result.images[7:].reshape(3, -1).any(axis=1).all(), "no black image is trained on"


def test_no_usable_box_leaves_the_originals(split: Split) -> None:
    result, notes = prepared(Split(split.images, split.labels, np.full((7, 4), -1, np.int32)))
    assert np.array_equal(result.images, split.images)
    assert notes == ["bbox-crop: 0 crops added, 0 degenerate boxes skipped"]


def test_the_given_set_stays(split: Split) -> None:
    images, labels, boxes = split.images.copy(), split.labels.copy(), split.boxes.copy()
    for array in (split.images, split.labels, split.boxes):
        array.flags.writeable = False
    prepared(split)
    assert np.array_equal(split.images, images)
    assert np.array_equal(split.labels, labels)
    assert np.array_equal(split.boxes, boxes)


def test_training_counts_the_crops_and_the_note_reaches_the_record(split: Split) -> None:
    recipe = Recipe(epochs=1, batch_size=5, lr=1e-3)
    defense = parse_defense("bbox-crop")
    record = train(build_toy_model(), split, defense, recipe, Runtime("cpu"), num_classes=TOY_CLASSES, seed=0)
    assert (record.images, record.steps) == (10, 2)
    assert record.notes == ("bbox-crop: 3 crops added, 3 degenerate boxes skipped",)
