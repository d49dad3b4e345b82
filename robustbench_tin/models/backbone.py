"""What a backbone is, and the ten that come with the package."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.variant import DenseHead, Variant


@dataclass(frozen=True)
class Backbone:
    """A network by its short name, and which square images it can see.

    Attributes:
        name: as users type it, lists show it and files record it.
        summary: one line for people: what it is, authors, year, arXiv id.
        timm_name: what timm calls it.
        smallest: height and width in pixels of the smallest square input that works.
        multiple: its input size is a multiple of this many pixels.
        fixed: it works at ``smallest`` and at no other size.
        sized: its parameters are laid out for one input size, given when it is built.
        lr: the peak learning rate to train it with where the user does not say.
        effort: the part of a data set's default epochs that a quick training takes; small for networks
            that train for minutes on a CPU where a small one takes seconds.
        quick_size: the size that a quick training and its measures see, if the user does not say; None: as
            elsewhere.
        native: the size that it sees where the user does not say; None: the images' own.
        variant: what its spec may change, and has.
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
        """The size in pixels at which the network sees images; builds nothing.

        Args:
            image_size: height and width of the data set's images.
            resize_to: the size asked for where the spec does not say, or None for the network's native one,
                else the images' own, enlarged where the network needs more.

        Raises:
            InvalidSettingError: where the network does not work at ``resize_to``.
        """
        if image_size < 1:
            raise InvalidSettingError(f"image size {image_size} is no size; expected 1 or more pixels")
        asked = (self.variant.size, resize_to, self.native)
        resize_to = next((size for size in asked if size is not None), None)
        if resize_to is None:
            wanted = -(-image_size // self.multiple) * self.multiple
            return self.smallest if self.fixed else max(wanted, self.smallest)
        self.require_fits(resize_to)
        return resize_to

    def require_fits(self, size: int) -> None:
        """Refuse a size in pixels that the network does not work at.

        Raises:
            InvalidSettingError: says which sizes it works at.
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
            " choose such a size, or none for the default"
        )


# `smallest` was found by trying: forward and backward of two images, in eval and in train mode, at every
# size from 1 px up, on torch's meta device, and the bound itself on real tensors. One pixel less fails
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
    "Inception v3 at 128 px, flattened, three dense layers and a sigmoid a class on it: the final model of"
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
