"""A first layer for small images: ResNets as used for 32 and 64 pixels."""

from __future__ import annotations

from timm.models.resnet import ResNet
from torch import nn

from robustbench_tin.errors import InvalidSettingError


def with_small_stem(network: nn.Module, backbone: str) -> nn.Module:
    """Replace the ResNet's stem by a 3 x 3 convolution without stride or pooling, in place.

    The published stem halves an image of 224 px twice before the first block, and reduces one of 64 px to
    16 x 16. He et al., 2015, arXiv:1512.03385, section 4.2, use the small stem on CIFAR.

    Raises:
        InvalidSettingError: if the network is not a ResNet of timm.
    """
    if not isinstance(network, ResNet) or not isinstance(network.conv1, nn.Conv2d):
        raise InvalidSettingError(
            f"backbone '{backbone}' got stem=3x3, which only ResNets without cut have; leave stem out, or"
            " choose resnet50 or timm:resnet18"
        )
    published = network.conv1
    first = nn.Conv2d(published.in_channels, published.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    network.add_module("conv1", first)
    network.add_module("maxpool", nn.Identity())
    return network
