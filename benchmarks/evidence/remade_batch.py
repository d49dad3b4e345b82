"""Images before and after an attack, with the logits of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor


@dataclass(frozen=True)
class RemadeBatch:
    """Images before and after an attack: a batch that was made again, or one image that the run keeps.

    Attributes:
        clean: uint8 ``(n, 3, H, W)`` on the CPU.
        adversarial: the same, rounded to 8 bits inside the ball.
        clean_logits: of the clean images, float32 ``(n, C)`` on the CPU.
        logits: of the rounded adversarial images, likewise.
        reproduced: whether clean and unrounded adversarial image give the stored results, bool ``(n,)``.
    """

    clean: Tensor
    adversarial: Tensor
    clean_logits: Tensor
    logits: Tensor
    reproduced: npt.NDArray[np.bool_]


def levels(images: Tensor) -> Tensor:
    """Multiples of 1/255 as uint8 on the CPU."""
    return (images * 255).round().byte().cpu()
