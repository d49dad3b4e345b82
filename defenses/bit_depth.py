"""Fewer bits per value before the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from robustbench_tin.defenses.base import Defense
from robustbench_tin.defenses.input_transform import InputTransform, softly_rounded, straight_through


@dataclass(frozen=True)
class BitDepth(Defense):
    """Round every value to the nearest of ``2 ** bits`` evenly spaced levels before classification.

    Xu, Evans and Qi, 2018, "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks",
    arXiv 1704.01155. Attacks use the gradient of a softened rounding (BPDA).

    Attributes:
        bits: number of bits per value, 1 to 8.
    """

    name: ClassVar[str] = "bit-depth"

    bits: int = 3

    def __post_init__(self) -> None:
        self.require(1 <= self.bits <= 8, "bits", "1 to 8")

    def wrap(self, classifier: nn.Module) -> nn.Module:
        return _SeesFewLevels(classifier, self.bits)


class _SeesFewLevels(InputTransform):
    substitutes_gradient = True

    def __init__(self, classifier: nn.Module, bits: int) -> None:
        super().__init__(classifier)
        self.highest = 2**bits - 1

    def transform(self, images: Tensor) -> Tensor:
        return straight_through(
            images,
            lambda inside: (inside * self.highest).round() / self.highest,
            lambda inside: softly_rounded(inside * self.highest) / self.highest,
        )
