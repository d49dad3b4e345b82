"""A base without its head, and optionally without its last stages, under a new head."""

from __future__ import annotations

from typing import Any, cast

import timm
import torch
from timm.models import FeatureListNet
from torch import Tensor, nn

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.backbone import Backbone
from robustbench_tin.models.variant import DenseHead


class HeadedNetwork(nn.Module):
    """The last feature map of a base, and a head on it."""

    def __init__(self, base: nn.Module, head: nn.Sequential) -> None:
        super().__init__()
        self.base = base
        self.head = head
        self.pretrained_cfg = {**cast("Any", base.pretrained_cfg), "classifier": f"head.{len(head) - 1}"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)`` of normalised images."""
        return cast("Tensor", self.head(self.base(images)[-1]))


def create_headed(backbone: Backbone, num_classes: int, size: int, **settings: Any) -> HeadedNetwork:
    """The network of a backbone whose variant has a new head; ``settings`` go to timm.

    Raises:
        InvalidSettingError: if the base cannot be cut, or has too few stages.
    """
    stage = _last_stage(backbone)
    with torch.device("meta"):
        skeleton = _create_base(backbone, (stage,)).eval()
        _, channels, height, width = skeleton(torch.empty(1, 3, size, size, dtype=torch.float32))[-1].shape
    base = _create_base(backbone, (stage,), **settings)
    variant = backbone.variant
    if not isinstance(variant, DenseHead):
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
        return HeadedNetwork(base, head)
    layers: list[nn.Module] = [nn.Flatten()]
    features = channels * height * width
    for _ in range(variant.hidden):
        layers += [nn.Linear(features, variant.width), nn.ReLU(inplace=True)]
        features = variant.width
    return HeadedNetwork(base, nn.Sequential(*layers, nn.Linear(features, num_classes)))


def _last_stage(backbone: Backbone) -> int:
    """Number of the last stage of the base that remains."""
    with torch.device("meta"):
        whole = _create_base(backbone)
    if not isinstance(whole, FeatureListNet):
        raise InvalidSettingError(
            f"backbone '{backbone.name}' cannot be cut, because its stages are not separate modules; leave"
            " cut out, or choose a VGG, ResNet, Inception or DenseNet"
        )
    stages = len(whole.feature_info.info)
    if backbone.variant.cut >= stages:
        raise InvalidSettingError(
            f"backbone '{backbone.name}' has {stages} stages; expected cut below {stages}"
        )
    return stages - 1 - backbone.variant.cut


def _create_base(backbone: Backbone, stages: tuple[int, ...] | None = None, **settings: Any) -> nn.Module:
    """The feature maps of these stages, in timm's numbering; None for all stages."""
    if stages is not None:
        settings["out_indices"] = stages
    base: nn.Module = timm.create_model(backbone.timm_name, features_only=True, **settings)
    return base
