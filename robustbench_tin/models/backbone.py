"""Backbones, and the ten that come with the package."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.variant import DenseHead, Variant


@dataclass(frozen=True)
class Backbone:
    """A network by its short name, with the square image sizes that it accepts.

    Attributes:
        name: the name that users type and that lists and files show.
        summary: one line for users: architecture, authors, year, arXiv id.
        timm_name: its name in timm.
        smallest: height and width in pixels of the smallest square input that works.
        multiple: its input size must be a multiple of this number of pixels.
        fixed: it works only at ``smallest``.
        sized: the shapes of its parameters depend on the input size, which is given when it is built.
        lr: its default peak learning rate.
        effort: the share of a data set's default epochs for a quick training; below 1 for networks that train
            for minutes on a CPU when a small network trains for seconds.
        quick_size: default input size in pixels for a quick training and its measurements; None for the usual
            default.
        native: default input size in pixels; None for the images' own size.
        variant: settings that its spec changed.
    """

    name: str
    summary: str
    timm_name: str
    smallest: int
    multiple: int = 1
    fixed: bool = False
    sized: bool = False
    lr: float = 1e-3
    effort: float = 1.0
    quick_size: int | None = None
    native: int | None = None
    variant: Variant = field(default_factory=Variant)

    def with_settings(self, settings: Mapping[str, str]) -> Backbone:
        """The same backbone with other settings; its name is then its canonical spec.

        Raises:
            RobustTinError: for an unknown setting or a value that does not fit.
        """
        variant = type(self.variant).from_settings(settings)
        _, colon, changed = variant.spec.partition(":")
        return dataclasses.replace(self, name=self.name + colon + changed, variant=variant)

    def check_size(self, image_size: int, resize_to: int | None = None) -> int:
        """The input size in pixels for a data set's images, without building the network.

        Args:
            image_size: height and width of the data set's images in pixels.
            resize_to: the requested size, used if the spec sets none. None for the network's native size, or
                else the images' own, enlarged if the network needs more.

        Raises:
            InvalidSettingError: if the network does not work at this size.
        """
        if image_size < 1:
            raise InvalidSettingError(f"image size got {image_size}; expected 1 or more pixels")
        asked = (self.variant.size, resize_to, self.native)
        resize_to = next((size for size in asked if size is not None), None)
        if resize_to is None:
            wanted = -(-image_size // self.multiple) * self.multiple
            return self.smallest if self.fixed else max(wanted, self.smallest)
        self.require_fits(resize_to)
        return resize_to

    def require_fits(self, size: int) -> None:
        """Refuse a size in pixels at which the network does not work.

        Raises:
            InvalidSettingError: names the sizes that work.
        """
        if self.fixed and size != self.smallest:
            expected = f"exactly {self.smallest}"
        elif size < self.smallest:
            expected = f"{self.smallest} or more"
        elif size % self.multiple:
            expected = f"a multiple of {self.multiple}"
        else:
            return
        raise InvalidSettingError(
            f"image size {size} does not fit backbone '{self.name}'; expected {expected} pixels:"
            " choose such a size, or leave it out for the default"
        )


# `smallest` was found by trial: forward and backward passes of two images, in eval and in train mode, at
# every size from 1 px up, on torch's meta device, and at the bound also on real tensors. One pixel less fails
# (a pooling or convolution runs out of pixels); MobileNet and ResNet pad everywhere and have no bound.
_VGG = "Simonyan and Zisserman, 2014, arXiv:1409.1556"
_DENSENET = "Huang et al., 2016, arXiv:1608.06993"

vgg16 = Backbone(
    "vgg16", f"VGG, 16 layers ({_VGG})", "vgg16", smallest=32, lr=1e-4, effort=1 / 4, quick_size=32
)
vgg19 = Backbone(
    "vgg19", f"VGG, 19 layers ({_VGG})", "vgg19", smallest=32, lr=1e-4, effort=1 / 4, quick_size=32
)
mobilenet = Backbone(
    "mobilenet",
    "MobileNet v1 (Howard et al., 2017, arXiv:1704.04861)",
    "mobilenetv1_100",
    smallest=1,
    lr=3e-3,
)
resnet50 = Backbone(
    "resnet50",
    "ResNet, 50 layers (He et al., 2015, arXiv:1512.03385)",
    "resnet50",
    smallest=1,
    effort=1 / 4,
    quick_size=32,
)
inceptionv3 = Backbone(
    "inceptionv3",
    "Inception v3 (Szegedy et al., 2015, arXiv:1512.00567)",
    "inception_v3",
    smallest=75,
    effort=1 / 4,
)
inceptionv3_final = Backbone(
    "inceptionv3-final",
    "Inception v3 at 128 px, flattened, under three dense layers and a sigmoid per class: the final model of"
    " the Tiny ImageNet report (Szegedy et al., 2015, arXiv:1512.00567)",
    "inception_v3",
    smallest=75,
    effort=1 / 4,
    native=128,
    variant=DenseHead(),
)
nasnetlarge = Backbone(
    "nasnetlarge",
    "NASNet-A large (Zoph et al., 2017, arXiv:1707.07012)",
    "nasnetalarge",
    smallest=3,
    lr=5e-4,
    effort=1 / 4,
    quick_size=32,
)
densenet121 = Backbone(
    "densenet121",
    f"DenseNet, 121 layers ({_DENSENET})",
    "densenet121",
    smallest=29,
    effort=1 / 4,
    quick_size=32,
)
densenet169 = Backbone(
    "densenet169",
    f"DenseNet, 169 layers ({_DENSENET})",
    "densenet169",
    smallest=29,
    effort=1 / 4,
    quick_size=32,
)
densenet201 = Backbone(
    "densenet201",
    f"DenseNet, 201 layers ({_DENSENET})",
    "densenet201",
    smallest=29,
    effort=1 / 4,
    quick_size=32,
)
