"""The training set that fgsm-static makes: its images, how far they were moved, and their effect."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import TOY_CLASSES, Toy

from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.training.context import Context

EPS = 0.05


@pytest.fixture
def split(toy: Toy) -> Split:
    images = (toy.images * 255).round().byte().numpy()
    boxes = np.tile(np.array([2, 3, 12, 10], np.int32), (len(images), 1))
    return Split(images, toy.labels.numpy(), boxes)


def prepared(spec: str, split: Split, toy: Toy) -> tuple[Split, list[str], list[str]]:
    notes: list[str] = []
    asked: list[str] = []

    def trained(name: str) -> torch.nn.Module:
        asked.append(name)
        return toy.model

    context = Context(
        torch.Generator(), torch.device("cpu"), TOY_CLASSES, epochs=1, note=notes.append, trained=trained
    )
    return parse_defense(spec).prepare(split, context), notes, asked


def test_each_image_is_added_once_more_inside_the_ball_and_fools_the_source(split: Split, toy: Toy) -> None:
    count = len(split)
    result, notes, asked = prepared(f"fgsm-static:source=mobilenet,eps={EPS}", split, toy)
    assert asked == ["mobilenet"]
    assert np.array_equal(result.images[:count], split.images)
    assert result.labels.tolist() == [*split.labels, *split.labels]
    added = result.images[count:]
    change = added.astype(int) - split.images.astype(int)
    assert np.abs(change).max() == int(EPS * 255)
    with torch.no_grad():
        clean = toy.model(torch.from_numpy(split.images).float() / 255).argmax(dim=1)
        answers = toy.model(torch.from_numpy(added).float() / 255).argmax(dim=1)
    fooled = int((answers != toy.labels).sum())
    assert fooled > int((clean != toy.labels).sum()) + count // 4
    assert notes == [
        f"fgsm-static: {count} images moved by eps {EPS:g} on mobilenet added, of which {fooled} fool it"
    ]


def test_what_stands_to_the_right_crops_only_the_originals(split: Split, toy: Toy) -> None:
    count = len(split)
    result, notes, _ = prepared(f"fgsm-static:eps={EPS}+bbox-crop", split, toy)
    assert len(result) == 3 * count
    assert notes[1] == f"bbox-crop: {count} crops added, 0 degenerate boxes skipped"
    before, _, _ = prepared(f"bbox-crop+fgsm-static:eps={EPS}", split, toy)
    assert len(before) == 4 * count


def test_the_sources_of_a_combination_are_those_of_its_parts() -> None:
    assert parse_defense("augment+fgsm-static:source=vgg16").sources == ("vgg16",)
    assert parse_defense("fgsm-static").sources == ("densenet169",)
    assert parse_defense("augment+bbox-crop").sources == ()


def test_a_training_without_other_classifiers_says_so(split: Split) -> None:
    context = Context(torch.Generator(), torch.device("cpu"), TOY_CLASSES, epochs=1, note=lambda line: None)
    with pytest.raises(InvalidSettingError, match="got no trained classifier 'densenet169'"):
        parse_defense("fgsm-static").prepare(split, context)
