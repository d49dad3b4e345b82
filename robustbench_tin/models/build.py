"""From a backbone to a classifier: create the network, seed it, fill it, wrap it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.backbone import Backbone
from robustbench_tin.models.classifier import Classifier
from robustbench_tin.models.network import calm_head, create_network, published_settings, seeded
from robustbench_tin.models.pretrained import create_pretrained
from robustbench_tin.models.weights import start_from


def build(
    backbone: Backbone,
    num_classes: int,
    *,
    image_size: int,
    resize_to: int | None,
    pretrained: bool,
    weights: Path | None,
    seed: int,
) -> Classifier:
    """See :meth:`Backbone.build`."""
    if pretrained and weights is not None:
        raise InvalidSettingError(
            f"both pretrained weights and the file '{weights}' are asked for; choose one of them"
        )
    if num_classes < 1:
        raise InvalidSettingError(f"{num_classes} classes were asked for; expected 1 or more")
    size = backbone.check_size(image_size, resize_to)
    notes: tuple[str, ...] = ()
    with seeded(seed):
        network: nn.Module
        if pretrained:
            network, notes = create_pretrained(backbone, num_classes, size)
        else:
            network = create_network(backbone, num_classes, size)
            calm_head(network)
    if weights is not None:
        notes = start_from(network, backbone.name, Path(weights))
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
    )
