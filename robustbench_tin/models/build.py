"""From a backbone to a classifier: create the network, seed it, fill it, wrap it."""

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
    """Build the classifier, on the CPU and in training mode.

    The same seed gives the same initial weights, and no global random generator moves.

    Args:
        backbone: as ``backbones.get(NAME)`` gives it.
        num_classes: C of its logits ``(N, C)``.
        image_size: height and width in pixels of the data set's images.
        resize_to: the size that the network sees, see :meth:`Backbone.check_size`.
        pretrained: start from timm's published weights, fetched on first use.
        weights: start from this file instead (safetensors, or a torch file of tensors).
        head_rows: of the head of those weights, one for each class, that the head starts from; empty: the
            head starts from scratch if the weights are of another number of classes.
        seed: of the initial weights.

    Raises:
        InvalidSettingError: where a size does not fit, or both ``pretrained`` and ``weights`` are given, or
            rows for a head of another form.
        WeightsError: where the weights cannot be fetched or read, or are another network's.
    """
    if pretrained and weights is not None:
        raise InvalidSettingError(
            f"both pretrained weights and the file '{weights}' are asked for; choose one of them"
        )
    if pretrained and backbone.variant.stem != "published":
        raise InvalidSettingError(
            f"backbone '{backbone.name}' is asked to start from published weights, which are of another stem;"
            " leave stem or the weights out"
        )
    if head_rows and backbone.variant.new_head:
        raise InvalidSettingError(
            f"head got 'published', and backbone '{backbone.name}' has a head of another form; leave one out"
        )
    if num_classes < 1:
        raise InvalidSettingError(f"{num_classes} classes were asked for; expected 1 or more")
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
    """Whether a file was written for this very network, head included."""
    return read_weights_file(weights).metadata.get("backbone") == backbone.name


def _on_base(
    backbone: Backbone, num_classes: int, size: int, weights: Path
) -> tuple[nn.Module, tuple[str, ...]]:
    """A network under a new head whose base is filled from a file of the whole base."""
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
