"""The bare networks: built by timm, with a seed, or as skeletons without values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import timm
import torch
from torch import nn

from robustbench_tin.models.backbone import Backbone
from robustbench_tin.models.one_pixel_head import use_one_pixel_head
from robustbench_tin.models.small_stem import with_small_stem
from robustbench_tin.runtime import float32_default


def create_network(backbone: Backbone, num_classes: int, size: int, **settings: Any) -> nn.Module:
    """The network of a backbone for square images of ``size`` pixels; ``settings`` go to timm."""
    with float32_default():
        return _create(backbone, num_classes, size, settings)


def _create(backbone: Backbone, num_classes: int, size: int, settings: dict[str, Any]) -> nn.Module:
    if backbone.variant.new_head:
        from robustbench_tin.models.custom_head import create_headed

        network: nn.Module = create_headed(backbone, num_classes, size, **settings)
    else:
        if backbone.sized:
            settings["img_size"] = size
        network = timm.create_model(backbone.timm_name, num_classes=num_classes, **settings)
    return with_small_stem(network, backbone.name) if backbone.variant.stem == "3x3" else network


def create_skeleton(backbone: Backbone, num_classes: int, size: int) -> nn.Module:
    """The same network on torch's meta device: shapes only, no memory and no arithmetic."""
    with torch.device("meta"):
        network = create_network(backbone, num_classes, size).eval()
        use_one_pixel_head(network, size)
        return network


def published_settings(network: nn.Module) -> Mapping[str, Any]:
    """timm's record of a network: mean, std, the name of its head."""
    return cast("Mapping[str, Any]", network.pretrained_cfg)


def head_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the layers whose width is the number of classes (``("fc",)``)."""
    names = published_settings(network)["classifier"]
    return (names,) if isinstance(names, str) else tuple(names or ())


def head_keys(network: nn.Module) -> tuple[str, ...]:
    """Names of the weights and biases of those layers."""
    return tuple(f"{head}.{part}" for head in head_names(network) for part in ("weight", "bias"))


def init_head_small(network: nn.Module) -> None:
    """Start a new head from small weights, so that all classes are about equally likely at first.

    Some of timm's heads start with logits far apart, and a short training spends its steps on undoing that.
    """
    for name in head_names(network):
        head = network.get_submodule(name)
        for parameter in head.parameters(recurse=False):
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.01)
            else:
                nn.init.zeros_(parameter)


def init_without_normalisation(network: nn.Module) -> None:
    """Initialise a network without normalisation so that its convolutions keep the scale of activations.

    timm keeps the scale of gradients instead. The last maps of a VGG then start with an eighth of the scale
    of its images, and a short training ends before it has made up for that. He et al., 2015, arXiv
    1502.01852.
    """
    modules = list(network.modules())
    # This includes timm's norms that derive from none of torch's, such as RmsNorm.
    if any("norm" in type(module).__name__.lower() for module in modules):
        return
    for module in modules:
        # Not a subclass: it may standardise its weights.
        if type(module) is nn.Conv2d:
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` on the CPU inside; on exit, every global generator has its former state."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # torch.manual_seed would also reseed the accelerators' generators, which nothing restores.
        torch.default_generator.manual_seed(seed)
        yield
