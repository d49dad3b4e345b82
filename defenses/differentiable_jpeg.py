"""JPEG in torch, with a gradient, which attacks use in place of libjpeg."""

from __future__ import annotations

import io
import math
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from robustbench_tin.defenses.input_transform import softly_rounded

_BLOCK = 8
# Colours are stored in blocks of half the resolution.
_UNIT = 2 * _BLOCK
# Weights of red, green and blue for brightness, and for the blue and red differences (ITU-T T.871).
_COLOURS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def softened_jpeg(images: Tensor, quality: int) -> Tensor:
    """An approximation of images after JPEG compression, in steps that have a gradient.

    The resolution of colours is halved, blocks of 8 × 8 are transformed to cosines, and these are softly
    rounded to multiples of a table's values.

    Args:
        images: float32 ``(N, C, H, W)`` in [0, 1], C 1 or 3.
        quality: libjpeg's quality, 1 to 100.

    Returns:
        float32 ``(N, C, H, W)``, about [0, 1].
    """
    height, width = images.shape[-2:]
    levels = functional.pad(255 * images, (0, -width % _UNIT, 0, -height % _UNIT), mode="replicate")
    bright, colour = (
        torch.tensor(table, device=images.device, dtype=torch.float32) for table in _tables(quality)
    )
    if images.shape[1] == 1:
        read = _quantised(levels - 128, bright) + 128
    else:
        turn = torch.tensor(_COLOURS, device=images.device, dtype=torch.float32)
        planes = torch.einsum("ij,njhw->nihw", turn, levels)
        halved = _quantised(functional.avg_pool2d(planes[:, 1:], 2), colour)
        colours = functional.interpolate(halved, scale_factor=2, mode="bilinear")
        planes = torch.cat([_quantised(planes[:, :1] - 128, bright) + 128, colours], dim=1)
        read = torch.einsum("ij,njhw->nihw", turn.inverse(), planes)
    return read[..., :height, :width] / 255


def _quantised(planes: Tensor, table: Tensor) -> Tensor:
    """Planes ``(N, C, H, W)`` of whole blocks, with cosines softly rounded to multiples of a table."""
    count, channels, height, width = planes.shape
    blocks = planes.reshape(count, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(
        3, 4
    )
    cosines = _cosines().to(planes.device)
    kept = softly_rounded(cosines @ blocks @ cosines.T / table) * table
    return (cosines.T @ kept @ cosines).transpose(3, 4).reshape(planes.shape)


def _cosines() -> Tensor:
    """The discrete cosine transform of eight values, orthonormal, ``(8, 8)``."""
    places = torch.arange(_BLOCK, dtype=torch.float32)
    frequency, place = places.view(-1, 1), places.view(1, -1)
    waves = torch.cos(math.pi * (2 * place + 1) * frequency / (2 * _BLOCK)) / 2
    waves[0] /= math.sqrt(2)
    return waves


@lru_cache
def _tables(quality: int) -> tuple[list[list[float]], list[list[float]]]:
    """The tables of brightness and of colours, 8 by 8 each, read from libjpeg."""
    file = io.BytesIO()
    Image.new("RGB", (_UNIT, _UNIT)).save(file, "JPEG", quality=quality)
    found = Image.open(file, formats=["JPEG"]).quantization  # type: ignore[attr-defined]
    bright, colour = (
        [[float(value) for value in found[index][row : row + _BLOCK]] for row in range(0, _BLOCK**2, _BLOCK)]
        for index in (0, 1)
    )
    return bright, colour
