"""The layer that Grad-CAM explains, for every backbone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustbench_tin.benchmarks.evidence.feature_map import last_feature_map, named_layer
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models import backbones
from robustbench_tin.models.network import create_skeleton

LAYERS = {
    "vgg16": ("features", 2),
    "vgg19": ("features", 2),
    "mobilenet": ("bn2", 2),
    "resnet50": ("layer4", 2),
    # Its last stage gives a single pixel here.
    "inceptionv3": ("Mixed_6e", 3),
    "nasnetlarge": ("act", 2),
    "densenet121": ("features", 2),
    "densenet169": ("features", 2),
    "densenet201": ("features", 2),
    "inceptionv3-final": ("base.Mixed_7c", 2),
}


@pytest.mark.parametrize("name", backbones.names())
def test_every_backbone_has_a_last_feature_map(name: str) -> None:
    backbone = backbones.get(name)
    size = backbone.check_size(64)
    network = create_skeleton(backbone, 10, size).eval()
    found, module, shape = last_feature_map(network, torch.empty(1, 3, size, size, device="meta"))
    assert (found, shape) == (LAYERS[name][0], (LAYERS[name][1],) * 2)
    assert named_layer(network, found) is module


def test_a_convolution_on_pooled_features_does_not_count() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1)),
        nn.Flatten(),
    )
    name, module, size = last_feature_map(model, torch.zeros(1, 3, 8, 8))
    assert (name, size) == ("0", (6, 6))
    assert module is model[0]


def test_a_network_without_maps_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(InvalidSettingError, match="finds no convolutional layer"):
        last_feature_map(model, torch.zeros(1, 3, 8, 8))


def test_close_names_are_told() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(InvalidSettingError, match=r"layer got '', .*; similar names: 0"):
        named_layer(model, "")
