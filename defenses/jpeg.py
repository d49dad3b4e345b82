"""JPEG compression before the classifier."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from robustbench_tin.defenses.base import Defense
from robustbench_tin.defenses.differentiable_jpeg import softened_jpeg
from robustbench_tin.defenses.input_transform import InputTransform, straight_through


@dataclass(frozen=True)
class JPEG(Defense):
    """Compress each image as JPEG and decode it again before classification.

    Dziugaite, Ghahramani and Roy, 2016, "A study of the effect of JPG compression on adversarial images",
    arXiv 1608.00853; Guo, Rana, Cisse and van der Maaten, 2018, "Countering Adversarial Images using
    Input Transformations", arXiv 1711.00117. It uses libjpeg on the CPU, with its default halved colour
    resolution. Attacks use the gradient of the same steps with softened rounding (BPDA), as Shin and Song,
    2017, "JPEG-resistant Adversarial Images", do with a cubic. The identity's gradient points to changes that
    no file keeps; with it, more than twice as many photographs stayed correctly classified.

    Attributes:
        quality: libjpeg's quality, 1 to 100.
    """

    name: ClassVar[str] = "jpeg"

    quality: int = 75

    def __post_init__(self) -> None:
        self.require(1 <= self.quality <= 100, "quality", "1 to 100")

    def wrap(self, classifier: nn.Module) -> nn.Module:
        return _SeesJPEG(classifier, self.quality)


class _SeesJPEG(InputTransform):
    substitutes_gradient = True

    def __init__(self, classifier: nn.Module, quality: int) -> None:
        super().__init__(classifier)
        self.quality = quality

    def transform(self, images: Tensor) -> Tensor:
        return straight_through(images, self._through_files, self._softened)

    def _softened(self, images: Tensor) -> Tensor:
        return softened_jpeg(images, self.quality)

    def _through_files(self, images: Tensor) -> Tensor:
        levels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        read = np.empty_like(levels)
        for index, pixels in enumerate(levels):
            read[index] = _written_and_read(pixels, self.quality)
        return torch.from_numpy(read).permute(0, 3, 1, 2).to(images.device).float() / 255


def _written_and_read(pixels: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """An image ``(H, W, C)``, of one or three channels, compressed and decoded in memory."""
    file = io.BytesIO()
    grey = pixels.shape[2] == 1
    Image.fromarray(pixels[..., 0] if grey else pixels).save(file, "JPEG", quality=quality)
    read = np.asarray(Image.open(file, formats=["JPEG"]))
    return read[..., None] if grey else read
