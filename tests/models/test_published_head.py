"""A head that starts from the rows of ImageNet's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robustbench_tin.errors import InvalidSettingError, WeightsError
from robustbench_tin.models import backbones, build_classifier, save_weights
from robustbench_tin.models.published_head import head_rows

TINY = "timm:test_resnet"
# A goldfish, a tench and a king penguin, whose places in ImageNet are known.
CLASSES = ("n01443537", "n01440764", "n02056570")
ROWS = (1, 0, 145)
IMAGES = torch.linspace(0, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)


def test_rows_are_the_places_of_the_classes_in_imagenet() -> None:
    assert head_rows("published", CLASSES) == ROWS
    assert head_rows("new", CLASSES) == head_rows("new", ("cat",)) == ()


def test_a_class_that_is_not_in_imagenet_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match=r"class 'disc' of the data .* or --head new"):
        head_rows("published", (*CLASSES, "disc"))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    save_weights(
        build_classifier(backbones.get(TINY), 1000, image_size=16, seed=3), tmp_path / "published.safetensors"
    )
    return tmp_path / "published.safetensors"


def test_a_network_begins_with_the_answers_of_its_rows(published: Path) -> None:
    whole = build_classifier(backbones.get(TINY), 1000, image_size=16, weights=published, seed=0).eval()
    cut = build_classifier(
        backbones.get(TINY), 3, image_size=16, weights=published, head_rows=ROWS, seed=1
    ).eval()
    torch.testing.assert_close(cut(IMAGES), whole(IMAGES)[:, ROWS])
    assert cut.notes == (
        "timm:test_resnet: the head starts from the published head's rows for these 3 classes",
    )


def test_a_head_of_a_thousand_classes_is_put_in_their_order(published: Path) -> None:
    order = list(range(999, -1, -1))
    whole = build_classifier(backbones.get(TINY), 1000, image_size=16, weights=published, seed=0).eval()
    turned = build_classifier(
        backbones.get(TINY), 1000, image_size=16, weights=published, head_rows=order, seed=1
    ).eval()
    torch.testing.assert_close(turned(IMAGES), whole(IMAGES)[:, order])


def test_weights_of_another_number_of_classes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    save_weights(build_classifier(backbones.get(TINY), 5, image_size=16, seed=3), file)
    with pytest.raises(
        WeightsError, match=r"the head of 'own.safetensors' has 5 classes; expected the 1,000"
    ):
        build_classifier(backbones.get(TINY), 3, image_size=16, weights=file, head_rows=ROWS, seed=0)


def test_a_head_of_another_form_is_refused(published: Path) -> None:
    with pytest.raises(InvalidSettingError, match="has a head of another form; leave one out"):
        build_classifier(
            backbones.get(f"{TINY}:cut=1"), 3, image_size=16, weights=published, head_rows=ROWS, seed=0
        )
