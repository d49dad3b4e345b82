"""Random resizing and padding before the classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_tin.defenses.base import Defense
from robustbench_tin.defenses.input_transform import InputTransform, trimmed


@dataclass(frozen=True)
class RandomResize(Defense):
    """Shrink each image to a random size and place it at random on black before classification.

    Xie, Wang, Zhang, Ren and Yuille, 2018, "Mitigating Adversarial Effects Through Randomization",
    arXiv 1711.01991, enlarge images of 299 to at most 331 pixels. Here the canvas has the image's own size,
    so that any classifier accepts it, and the image is shrunk by the same ratio. Each image has new random
    numbers in each pass, from torch's random state, also in eval mode. The gradient belongs to the pass;
    expectation over transformations (``--eot``) averages over several passes.

    Attributes:
        least: smallest size, as a fraction of the image's side, above 0 and at most 1.
    """

    name: ClassVar[str] = "random-resize"

    least: float = 0.9

    def __post_init__(self) -> None:
        self.require(0 < self.least <= 1, "least", "more than 0, at most 1")

    def wrap(self, classifier: nn.Module) -> nn.Module:
        return _SeesResized(classifier, self.least)


class _SeesResized(InputTransform):
    def __init__(self, classifier: nn.Module, least: float) -> None:
        super().__init__(classifier)
        self.least = least

    def transform(self, images: Tensor) -> Tensor:
        # The same random number for both axes, so that an image keeps its proportions.
        draw = torch.rand(len(images), 1, device=images.device, dtype=torch.float32)
        down, across = (_placed(side, draw, self.least) for side in images.shape[-2:])
        return trimmed(down.unsqueeze(1) @ images @ across.mT.unsqueeze(1))


def _placed(side: int, draw: Tensor, least: float) -> Tensor:
    """Resize one axis bilinearly and place it at random, as a matrix per image: ``(N, side, side)``.

    It is a matrix because every image has another size: one batched product per axis handles them all. Its
    backward pass is deterministic on a GPU; that of a gather is not.
    """
    smallest = max(1, math.ceil(least * side - 1e-9))
    sizes = smallest + (draw * (side - smallest + 1)).floor().clamp(max=side - smallest)
    free = side - sizes
    starts = (torch.rand_like(draw) * (free + 1)).floor().minimum(free)
    pixels = torch.arange(side, device=draw.device)
    inside = pixels - starts
    sources = ((inside + 0.5) * (side / sizes) - 0.5).clamp(0, side - 1)
    weights = (1 - (sources.unsqueeze(2) - pixels).abs()).clamp(min=0)
    on_canvas = (inside >= 0) & (inside < sizes)
    return weights * on_canvas.unsqueeze(2)
