"""JPEG in torch, with a gradient: what attacks look through in the place of libjpeg."""

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
# Colours come in blocks of half the resolution.
_UNIT = 2 * _BLOCK
# Brightness, and how much bluer and redder than that, of red, green and blue (ITU-T T.871).
_COLOURS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def softened_jpeg(images: Tensor, quality: int) -> Tensor:
    """Images as they come back from a JPEG file, nearly, by steps that have a gradient.

    Colours are halved in resolution, blocks of 8 × 8 become cosines, and those are rounded, softly, to
    multiples of a table's.

    Args:
        images: float32 ``(N, C, H, W)`` in [0, 1], C 1 or 3.
        quality: as libjpeg counts it, 1 to 100.
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
    """Planes ``(N, C, H, W)`` of whole blocks, their cosines softly rounded to multiples of a table."""
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
    """The tables of brightness and of colours, 8 by 8 each, asked of libjpeg itself."""
    file = io.BytesIO()
    Image.new("RGB", (_UNIT, _UNIT)).save(file, "JPEG", quality=quality)
    found = Image.open(file, formats=["JPEG"]).quantization  # type: ignore[attr-defined]
    bright, colour = (
        [[float(value) for value in found[index][row : row + _BLOCK]] for row in range(0, _BLOCK**2, _BLOCK)]
        for index in (0, 1)
    )
    return bright, colour
