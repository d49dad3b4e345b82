"""JPEG compression before the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_tin.defenses.base import Defense
from robustbench_tin.defenses.input_transform import InputTransform, straight_through


@dataclass(frozen=True)
class JPEG(Defense):
    """Write each image as a JPEG file and read it back before it is classified.

    Dziugaite, Ghahramani and Roy, 2016, "A study of the effect of JPG compression on adversarial images",
    arXiv 1608.00853; Guo, Rana, Cisse and van der Maaten, 2018, "Countering Adversarial Images using
    Input Transformations", arXiv 1711.00117. It is libjpeg itself, on the CPU, with its usual halved
    colour resolution. Attacks see the identity as its gradient (BPDA).

    Attributes:
        quality: as libjpeg counts it, 1 to 100.
    """

    name: ClassVar[str] = "jpeg"

    quality: int = 75

    def __post_init__(self) -> None:
        self.require(1 <= self.quality <= 100, "quality", "1 to 100")

    def wrap(self, classifier: nn.Module) -> nn.Module:
        return _SeesJPEG(classifier, self.quality)


class _SeesJPEG(InputTransform):
    def __init__(self, classifier: nn.Module, quality: int) -> None:
        super().__init__(classifier)
        self.quality = quality

    def transform(self, images: Tensor) -> Tensor:
        return straight_through(images, self._through_files)

    def _through_files(self, images: Tensor) -> Tensor:
        levels = (images * 255).round().to(torch.uint8).cpu().contiguous()
        read = torch.stack([_written_and_read(image, self.quality) for image in levels])
        return read.to(images.device).float() / 255


def _written_and_read(image: Tensor, quality: int) -> Tensor:
    """A uint8 image ``(C, H, W)``, of one or three channels, through a JPEG file in memory."""
    from torchvision.io import decode_jpeg, encode_jpeg

    read: Tensor = decode_jpeg(encode_jpeg(image, quality))
    return read
