"""The weights that networks begin with."""

from __future__ import annotations

import copy
import itertools

import pytest
import timm
import torch
from torch import nn

from robustbench_tin.models.network import init_without_normalisation


def deep(*, normalised: bool) -> nn.Sequential:
    """Twelve convolutions that double their channels on the way, as a VGG's do, without padding's losses."""
    widths = [3, *[32] * 4, *[64] * 4, *[128] * 4]
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for into, out in itertools.pairwise(widths):
        layers += [nn.Conv2d(into, out, 3, padding=1, padding_mode="circular"), nn.ReLU()]
        if normalised:
            layers.insert(-1, nn.BatchNorm2d(out))
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


def scale(network: nn.Module) -> float:
    """The scale of a network's output for images of scale 1."""
    with torch.no_grad():
        return float(network(torch.randn(8, 3, 8, 8)).square().mean().sqrt())


def test_a_network_without_normalisation_keeps_the_scale_of_its_images() -> None:
    network = deep(normalised=False)
    assert scale(network) < 0.5
    init_without_normalisation(network)
    assert 0.7 < scale(network) < 1.4


def test_one_with_normalisation_is_left_alone() -> None:
    network = deep(normalised=True)
    before = [each.clone() for each in network.parameters()]
    init_without_normalisation(network)
    assert all(map(torch.equal, before, network.parameters()))


@pytest.mark.parametrize("name", ["test_nfnet", "test_vit", "test_convnext"])
def test_timm_s_networks_with_norms_or_weights_of_their_own_are_left_alone(name: str) -> None:
    network = timm.create_model(name, num_classes=2)
    before = copy.deepcopy(network.state_dict())
    init_without_normalisation(network)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
