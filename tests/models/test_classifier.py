"""Normalisation and resizing inside the classifier, against the same by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.models import Classifier, backbones, build_classifier

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def see_through(input_size: int) -> Classifier:
    """A classifier whose logits are the pixels that its network sees."""
    return Classifier(
        nn.Flatten(),
        backbone="flat",
        num_classes=3 * input_size**2,
        image_size=8,
        input_size=input_size,
        mean=MEAN,
        std=STD,
    )


def normalised(images: Tensor) -> Tensor:
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_images_of_the_right_size_are_only_normalised(images: Tensor) -> None:
    seen = see_through(8)(images).view_as(images)
    assert torch.allclose(seen, normalised(images), atol=1e-6)


def test_enlarging_equals_resizing_pixels_then_normalising(images: Tensor) -> None:
    by_hand = normalised(functional.interpolate(images, size=(13, 13), mode="bilinear", align_corners=False))
    assert torch.allclose(see_through(13)(images).view_as(by_hand), by_hand, atol=1e-5)


def test_shrinking_filters_first(images: Tensor) -> None:
    by_hand = normalised(
        functional.interpolate(images, size=(4, 4), mode="bilinear", align_corners=False, antialias=True)
    )
    assert torch.allclose(see_through(4)(images).view_as(by_hand), by_hand, atol=1e-5)


def test_oblong_images_are_resized_to_a_square(images: Tensor) -> None:
    assert see_through(6)(images[..., :4]).shape == (2, 3 * 36)


@pytest.mark.parametrize("input_size", [4, 8, 13])
def test_gradient_through_resizing_matches_finite_differences(input_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=generator).requires_grad_()
    classifier = see_through(input_size).double()
    assert torch.autograd.gradcheck(classifier.prepare, images)


def test_integer_images_are_refused(images: Tensor) -> None:
    with pytest.raises(TypeError, match="uint8"):
        see_through(8)((images * 255).byte())


def test_mean_and_std_are_the_networks_own_and_stay_out_of_its_state() -> None:
    classifier = build_classifier(backbones.get("mobilenet"), 5, image_size=8, seed=0)
    assert classifier.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert all(key.startswith("network.") for key in classifier.state_dict())
