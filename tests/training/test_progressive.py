"""Progressive resizing: small images first, the full side at the end, and no trace of it afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from loop_toys import split_of
from torch import nn
from toys import TOY_CLASSES, build_toy_model

from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models import Classifier
from robustbench_tin.runtime import Runtime
from robustbench_tin.training.loop import train
from robustbench_tin.training.progressive import sides
from robustbench_tin.training.recipe import Recipe, TrainingRecord


def classifier_of_16_pixels() -> Classifier:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, TOY_CLASSES)
    )
    facts = {"backbone": "toy", "num_classes": TOY_CLASSES, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return Classifier(network, image_size=16, input_size=16, **facts)


def trained(
    classifier: nn.Module,
    epochs: int = 4,
    defense: str = "none",
    on_step: Callable[[int, int], None] | None = None,
) -> TrainingRecord:
    recipe = Recipe(epochs=epochs, batch_size=20, lr=1e-3, progressive=0.5)
    options = {"num_classes": TOY_CLASSES, "seed": 0, "on_step": on_step}
    return train(classifier, split_of(40), parse_defense(defense), recipe, Runtime("cpu"), **options)


@pytest.mark.parametrize(
    ("full", "start", "epochs", "expected"),
    [
        (64, 1.0, 3, [64, 64, 64]),
        (64, 0.5, 1, [64]),
        (64, 0.5, 2, [48, 64]),
        (64, 0.5, 10, [32] * 3 + [48] * 3 + [64] * 4),
        (224, 0.5, 10, [112] * 3 + [168] * 3 + [224] * 4),
        (64, 0.01, 10, [8] * 3 + [32] * 3 + [64] * 4),
        (10, 0.9, 4, [8, 8, 10, 10]),
    ],
)
def test_sides_grow_to_the_full_one(full: int, start: float, epochs: int, expected: list[int]) -> None:
    assert sides(full, start, epochs) == expected


def test_the_network_sees_small_images_first_and_is_left_at_its_own_side() -> None:
    classifier, seen = classifier_of_16_pixels(), []
    classifier.network.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0].shape[-1]))
    trained(classifier, 10)
    # Two steps an epoch; three quarters of 16 pixels are rounded to a multiple of 8.
    assert seen == [8] * 6 + [16] * 14
    assert classifier.input_size == 16


def test_a_failure_leaves_the_side_as_it_was() -> None:
    classifier = classifier_of_16_pixels()

    def stop(done: int, of_all: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(classifier, on_step=stop)
    assert classifier.input_size == 16


def test_a_model_that_resizes_nothing_is_refused() -> None:
    with pytest.raises(
        InvalidSettingError, match="Sequential, which has no input_size; expected a Classifier"
    ):
        trained(build_toy_model())


def test_adversarial_images_are_made_on_the_data_sets_own_pixels() -> None:
    classifier, shown = classifier_of_16_pixels(), []
    classifier.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0].shape[-1]))
    assert trained(classifier, 10, "fgsm-at").steps == 20
    assert set(shown) == {16}
    assert classifier(torch.rand(2, 3, 16, 16)).shape == (2, TOY_CLASSES)
