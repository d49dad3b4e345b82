"""Layers on small maps as products, against the layers themselves."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.models.vgg import ConvMlp
from torch import Tensor, nn

from robustbench_tin.models import backbones, build_classifier, small_maps
from robustbench_tin.models.small_maps import product_forward, use_products

LAYERS = {
    "pointwise": (nn.Conv2d(6, 4, 1), (3, 4)),
    "pointwise, a stride": (nn.Conv2d(6, 4, 1, stride=2, bias=False), (4, 3)),
    "one pixel": (nn.Conv2d(6, 4, 3, padding=1), (1, 1)),
    "one pixel, a stride": (nn.Conv2d(6, 4, 3, padding=1, stride=2, bias=False), (1, 1)),
    "one pixel, 1 x 7": (nn.Conv2d(6, 4, (1, 7), padding=(0, 3)), (1, 1)),
    "depthwise, one pixel": (nn.Conv2d(6, 6, 5, padding=2, groups=6), (1, 1)),
    "depthwise, four": (nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), (2, 2)),
    "depthwise, a stride": (nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=6), (2, 2)),
    "depthwise, oblong": (nn.Conv2d(6, 6, (3, 5), padding=(1, 2), groups=6), (1, 3)),
    "depthwise, padded as TensorFlow does": (Conv2dSame(6, 6, 5, stride=2, groups=6), (4, 4)),
    "depthwise, padded on one side": (Conv2dSame(6, 6, (4, 3), stride=(2, 3), groups=6, bias=False), (2, 3)),
    "VGG head, one pixel": (ConvMlp(6, 8, 7), (1, 1)),
    "VGG head, four": (ConvMlp(6, 8, 7), (2, 2)),
    "VGG head, oblong": (ConvMlp(6, 8, 7), (3, 2)),
}


def outcome(layer: nn.Module, maps: Tensor) -> list[Tensor]:
    """A layer's output for maps, and the gradients of maps and weights."""
    maps = maps.clone().requires_grad_()
    made = layer(maps)
    towards = torch.linspace(-1, 1, made.numel(), dtype=made.dtype).view(made.shape)
    return [made, *torch.autograd.grad((made * towards).sum(), [maps, *layer.parameters()])]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_products_are_the_layer(
    name: str, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, size = LAYERS[name]
    torch.manual_seed(0)
    layer = copy.deepcopy(layer).double().eval().to(memory_format=layout)  # type: ignore[call-overload]
    maps = torch.rand(3, 6, *size, dtype=torch.float64).contiguous(memory_format=layout)
    expected = outcome(layer, maps)
    use_products(layer)
    # It must not be the convolution that answers.
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", None)
    found = outcome(layer, maps)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [(7, 7), (9, 8), (8, 1), (17, 17)])
def test_larger_maps_stay_with_the_layer(name: str, size: tuple[int, int]) -> None:
    layer, maps = copy.deepcopy(LAYERS[name][0]).eval(), torch.rand(2, 6, *size)
    expected = layer(maps)
    use_products(layer)
    torch.testing.assert_close(layer(maps), expected)


@pytest.mark.parametrize("name", ["mobilenet", "timm:test_resnet", "densenet121"])
def test_a_built_network_is_the_plain_one(name: str) -> None:
    built = build_classifier(backbones.get(name), 4, image_size=32, seed=0).double().eval()
    plain = copy.deepcopy(built)
    changed = [layer for layer in plain.modules() if vars(layer).pop("forward", None) is not None]
    assert changed
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    for one, other in zip(outcome(built, images), outcome(plain, images), strict=True):
        torch.testing.assert_close(one, other)


def pickled(layer: nn.Module) -> nn.Module:
    again: nn.Module = pickle.loads(pickle.dumps(layer))
    return again


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_uses_its_own_weights(copied: Callable[[nn.Module], nn.Module]) -> None:
    layer = nn.Conv2d(2, 2, 1)
    use_products(layer)
    twin = copied(layer)
    nn.init.zeros_(layer.weight)
    maps = torch.rand(1, 2, 1, 1)
    torch.testing.assert_close(twin(maps), nn.Conv2d.forward(twin, maps))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LAYERS)
def test_a_first_pass_in_inference_mode_spoils_no_later_one(name: str) -> None:
    # A stride that no other test has, so that nothing is kept of its maps yet.
    layer, size = copy.deepcopy(LAYERS[name][0]), LAYERS[name][1]
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        layer.stride = (3, 3)
    use_products(layer)
    with torch.inference_mode():
        layer(torch.rand(2, 6, *size))
    assert len(outcome(layer, torch.rand(2, 6, *size))) > 1


@pytest.mark.parametrize("name", LAYERS)
def test_no_image_is_no_map(name: str) -> None:
    layer, (height, width) = copy.deepcopy(LAYERS[name][0]), LAYERS[name][1]
    expected = layer(torch.rand(2, 6, height, width)).shape[1:]
    use_products(layer)
    assert layer(torch.rand(0, 6, height, width)).shape == (0, *expected)


@pytest.mark.parametrize("faster", [True, False])
def test_linear_layers_change_if_onednn_is_faster(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_maps, "ONEDNN_IS_FASTER", faster)
    layer, rows = nn.Linear(1500, 1500), torch.rand(2, 3, 1500)
    expected = layer(rows)
    use_products(layer)
    assert ("forward" in vars(layer)) == faster
    torch.testing.assert_close(layer(rows), expected)


class _Same(nn.Conv2d):
    """Stands for a convolution that pads in its own way."""


@pytest.mark.parametrize(
    "layer",
    [
        _Same(4, 4, 1),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 1, groups=2),
        Conv2dSame(4, 4, 1),
        Conv2dSame(4, 4, 3, groups=4, dilation=2),
        nn.Bilinear(4, 4, 4),
    ],
)
def test_other_layers_are_left_alone(layer: nn.Module) -> None:
    assert product_forward(layer) is None
