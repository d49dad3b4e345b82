"""The architectures of the zoo: small, yet with the parts that attacks meet in large ones.

Each takes float32 pixels ``(N, 3, S, S)`` in [0, 1] and returns logits ``(N, classes)``; 32 divides S.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

EFFICIENTNET = "tf_efficientnet_lite0"


class Normalised(nn.Module):
    """A network behind its normalisation, and behind bilinear resizing if it expects another size.

    Args:
        network: normalised images to logits.
        mean: of each channel, in units of the pixel range.
        std: of each channel, likewise.
        size: side in pixels that the network expects; None: the images' own.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: float = 0.5, std: float = 0.25, size: int | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.register_buffer("mean", torch.full((1, 3, 1, 1), mean), persistent=False)
        self.register_buffer("std", torch.full((1, 3, 1, 1), std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.size is not None:
            images = functional.interpolate(images, size=(self.size, self.size), mode="bilinear")
        return cast("Tensor", self.network((images - self.mean) / self.std))


def resnet(classes: int, size: int) -> nn.Module:
    """A residual network with batch norm: 0.3 million weights in three stages."""
    del size
    width = 32
    return Normalised(
        nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _Residual(width, width, 1),
            _Residual(width, 2 * width, 2),
            _Residual(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, classes),
        )
    )


def vit(classes: int, size: int) -> nn.Module:
    """timm's vision transformer with patches of 8 pixels, four blocks of width 96."""
    from timm.models.vision_transformer import VisionTransformer

    return Normalised(
        VisionTransformer(
            img_size=size, patch_size=8, embed_dim=96, depth=4, num_heads=3, mlp_ratio=2, num_classes=classes
        )
    )


def convnext_layer_norm(classes: int, size: int) -> nn.Module:
    """timm's ConvNeXt with its own layer norm."""
    del size
    return _convnext(classes, None)


def convnext_group_norm(classes: int, size: int) -> nn.Module:
    """The same with group norm: every layer's statistics reach over the whole image."""
    del size
    return _convnext(classes, "groupnorm1")


def efficientnet(classes: int, size: int) -> nn.Module:
    """timm's EfficientNet-Lite0, which sees the images at half as large a side again."""
    import timm

    return Normalised(timm.create_model(EFFICIENTNET, num_classes=classes), std=0.5, size=3 * size // 2)


def _convnext(classes: int, norm: str | None) -> nn.Module:
    from timm.models.convnext import ConvNeXt

    # The published 1e-6 is for 12 and more blocks; from scratch, short training needs blocks that count.
    return Normalised(
        ConvNeXt(
            num_classes=classes,
            depths=(1, 1, 2, 1),
            dims=(32, 64, 96, 128),
            conv_mlp=norm is not None,
            norm_layer=norm,
            ls_init_value=0.1,
        )
    )


class _Residual(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.short = (
            nn.Identity()
            if width == out and stride == 1
            else nn.Sequential(nn.Conv2d(width, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, maps: Tensor) -> Tensor:
        return functional.relu(self.body(maps) + self.short(maps))
