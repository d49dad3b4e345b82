"""From a backbone to a classifier: create the network, seed it, load weights, wrap it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.backbone import Backbone
from robustbench_tin.models.classifier import Classifier
from robustbench_tin.models.network import (
    create_network,
    init_head_small,
    init_without_normalisation,
    published_settings,
    seeded,
)
from robustbench_tin.models.one_pixel_head import use_one_pixel_head
from robustbench_tin.models.pretrained import create_pretrained
from robustbench_tin.models.small_maps import use_products
from robustbench_tin.models.variant import Variant
from robustbench_tin.models.weights import start_from
from robustbench_tin.models.weights_file import read_weights_file


def build_classifier(
    backbone: Backbone,
    num_classes: int,
    *,
    image_size: int,
    resize_to: int | None = None,
    pretrained: bool = False,
    weights: Path | None = None,
    head_rows: Sequence[int] = (),
    seed: int,
) -> Classifier:
    """Build a classifier, on the CPU and in training mode.

    The same seed gives the same initial weights. No global random generator changes its state.

    Args:
        backbone: from ``backbones.get(NAME)``.
        num_classes: number of classes C of the logits ``(N, C)``.
        image_size: height and width of the data set's images in pixels.
        resize_to: the network's input size in pixels, see :meth:`Backbone.check_size`.
        pretrained: start from timm's published weights, which are downloaded on first use.
        weights: start from this file instead (safetensors, or a torch file of tensors).
        head_rows: rows of the head in those weights, one for each class, that the head starts from. Empty:
            the head starts from scratch if the weights have another number of classes.
        seed: seed of the initial weights.

    Raises:
        InvalidSettingError: if a size does not fit, if both ``pretrained`` and ``weights`` are given, or if
            rows are given for a head of another form.
        WeightsError: if the weights cannot be downloaded or read, or belong to another network.

    >>> from robustbench_tin.models import backbones
    >>> classifier = build_classifier(backbones.get("mobilenet"), 10, image_size=32, seed=0)
    >>> import torch
    >>> classifier.eval()(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if pretrained and weights is not None:
        raise InvalidSettingError(f"got both pretrained weights and the file '{weights}'; give one of them")
    if pretrained and backbone.variant.stem != "published":
        raise InvalidSettingError(
            f"backbone '{backbone.name}' got stem={backbone.variant.stem} with published weights, which have"
            " another stem; leave stem or the weights out"
        )
    if head_rows and backbone.variant.new_head:
        raise InvalidSettingError(
            f"head got 'published', but backbone '{backbone.name}' has a head of another form; leave one out"
        )
    if num_classes < 1:
        raise InvalidSettingError(f"number of classes got {num_classes}; expected 1 or more")
    size = backbone.check_size(image_size, resize_to)
    notes: tuple[str, ...] = ()
    with seeded(seed):
        network: nn.Module
        if pretrained:
            network, notes = create_pretrained(backbone, num_classes, size, head_rows)
            use_one_pixel_head(network, size)
        elif weights is not None and backbone.variant.new_head and not _is_of(weights, backbone):
            network, notes = _on_base(backbone, num_classes, size, weights)
            weights = None
        else:
            network = create_network(backbone, num_classes, size)
            use_one_pixel_head(network, size)
            init_without_normalisation(network)
            init_head_small(network)
    if weights is not None:
        notes = start_from(network, backbone.name, Path(weights), head_rows)
    use_products(network)
    published = published_settings(network)
    return Classifier(
        network,
        backbone=backbone.name,
        num_classes=num_classes,
        image_size=image_size,
        input_size=size,
        mean=published["mean"],
        std=published["std"],
        notes=notes,
        interpolation=backbone.variant.interpolation,
        one_vs_rest=backbone.variant.one_vs_rest,
    )


def _is_of(weights: Path, backbone: Backbone) -> bool:
    """True if the file was written for this network, head included."""
    return read_weights_file(weights).metadata.get("backbone") == backbone.name


def _on_base(
    backbone: Backbone, num_classes: int, size: int, weights: Path
) -> tuple[nn.Module, tuple[str, ...]]:
    """A network with a new head, whose base is loaded from a file of the whole base."""
    plain = dataclasses.replace(backbone, variant=Variant())
    whole = create_network(plain, num_classes, size)
    start_from(whole, backbone.name, weights)
    network = create_network(
        backbone,
        num_classes,
        size,
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": whole.state_dict()},
    )
    init_head_small(network)
    return network, (f"{backbone.name}: a new head for {num_classes} classes starts from scratch",)
