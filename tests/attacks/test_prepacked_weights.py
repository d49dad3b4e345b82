"""Weights packed for answers, against the module itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.prepacked_weights import prepack_weights
from robustbench_tin.attacks.acceleration.small_map_conv import replace_small_map_convs
from robustbench_tin.attacks.acceleration.variant_cache import VariantCache
from robustbench_tin.attacks.acceleration.variant_label import VariantLabel
from robustbench_tin.attacks.acceleration.variants import ModelVariant, drop_gradients
from robustbench_tin.models import backbones, build_classifier


def network(name: str) -> nn.Module:
    classifier = build_classifier(backbones.get(name), 10, image_size=32, resize_to=None, seed=0)
    return classifier.eval().requires_grad_(False)


def packed(model: nn.Module, images: Tensor) -> nn.Module:
    return prepack_weights(copy.deepcopy(model), images)


@pytest.mark.parametrize("name", ["timm:resnet18", "mobilenet", "timm:test_vit"])
def test_answers_are_the_same(name: str) -> None:
    model = network(name)
    size = model.image_size
    images = torch.rand(5, 3, size, size, generator=torch.Generator().manual_seed(0))
    twin = packed(model, images)
    assert any(type(layer).__name__.startswith("_Packed") for layer in twin.modules())
    with torch.inference_mode():
        for count in (1, 3, 5):
            assert torch.allclose(twin(images[:count]), model(images[:count]), atol=1e-5)


def test_a_module_that_answers_otherwise_afterwards_is_not_packed() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 10, 4)

        def forward(self, images: Tensor) -> Tensor:
            mood = 0.0 if type(self.layer) is nn.Conv2d else 0.1
            return self.layer(images).flatten(1) + mood

    moody = Moody().requires_grad_(False)
    with pytest.raises(ValueError, match="other logits"):
        prepack_weights(moody, torch.rand(2, 3, 4, 4))
    assert not drop_gradients(
        ModelVariant(Moody().requires_grad_(False), VariantLabel(fused=True)), torch.rand(2, 3, 4, 4)
    )


def test_layers_that_a_pass_goes_through_twice_stay() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Conv2d(3, 3, 3, padding=1)
            self.head = nn.Linear(48, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.shared(self.shared(images)).flatten(1))

    twin = packed(Twice().requires_grad_(False), torch.rand(2, 3, 4, 4))
    assert type(twin.shared) is nn.Conv2d
    assert type(twin.head) is not nn.Linear


def test_maps_may_come_in_another_size_afterwards() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.eval().requires_grad_(False)
    tiny, larger = torch.rand(2, 3, 2, 2), torch.rand(2, 3, 5, 4)
    twin = packed(replace_small_map_convs(copy.deepcopy(model), tiny), tiny)
    with torch.inference_mode():
        for images in (tiny, larger):
            assert torch.allclose(twin(images), model(images), atol=1e-6)


def _kinds(variant: ModelVariant) -> set[bool]:
    """Of the layers, whether they are packed."""
    return {type(layer).__name__.startswith("_Packed") for layer in variant.module.modules()}


def test_answers_come_from_packed_weights_and_gradients_do_not() -> None:
    model = network("timm:test_resnet")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    # Packed is a form of its own, not the one to search with.
    assert _kinds(VariantCache().choose("fixed", model, images).forward_only()) == {False}
    labels = ["float32", "float32, channels-last, folded"]
    chosen = VariantCache({"fastest": labels}).choose("fastest", model, images)
    answering = chosen.forward_only()
    assert chosen.forward_only() is answering
    assert _kinds(answering) == {True, False}
    variable = images.clone().requires_grad_()
    logits = chosen.variant(precise=True).logits(variable)
    assert isinstance(logits, Tensor)
    assert torch.autograd.grad(logits.sum(), variable)[0].abs().sum() > 0
    with torch.inference_mode():
        answers = answering.logits(images)
    assert isinstance(answers, Tensor)
    assert torch.allclose(answers, logits, atol=1e-4)
    assert answering.label == chosen.labels[1]


def test_the_model_itself_is_never_packed() -> None:
    model = network("timm:test_resnet")
    chosen = VariantCache().choose("exact", model, torch.rand(2, 3, 32, 32))
    assert chosen.forward_only().module is model
