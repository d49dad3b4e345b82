"""Settings that a backbone's spec may change: ``densenet169:size=128,interpolation=bicubic,cut=1``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robustbench_tin.specs import Configurable

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area")
OUTPUTS = ("sigmoid", "softmax")
STEMS = ("published", "3x3")


@dataclass(frozen=True)
class Variant(Configurable):
    """Settings that any backbone accepts.

    Attributes:
        size: height and width of the network's input in pixels; None for the run's choice.
        interpolation: method that resizes images to it, inside the classifier: one of :data:`INTERPOLATIONS`.
        cut: number of last stages of the base to drop; a new head follows.
        stem: ``3x3`` for a first convolution for small images, without stride and pooling; only for ResNets.
        output: ``sigmoid`` trains each class against the rest; ``softmax`` trains all against each other.
    """

    kind: ClassVar[str] = "a"
    name: ClassVar[str] = "backbone"

    size: int | None = None
    interpolation: str = "bilinear"
    cut: int = 0
    stem: str = "published"
    output: str = "softmax"

    def __post_init__(self) -> None:
        self.require(self.size is None or self.size >= 1, "size", "1 or more pixels")
        self.require(self.interpolation in INTERPOLATIONS, "interpolation", ", ".join(INTERPOLATIONS))
        self.require(self.cut >= 0, "cut", "0 or more stages")
        self.require(self.stem in STEMS, "stem", " or ".join(STEMS))
        self.require(self.output in OUTPUTS, "output", " or ".join(OUTPUTS))

    @property
    def new_head(self) -> bool:
        """True if a new head replaces the base's own."""
        return self.cut > 0

    @property
    def one_vs_rest(self) -> bool:
        """True if each class is trained against the rest, with a sigmoid of its own."""
        return self.output == "sigmoid"


@dataclass(frozen=True)
class DenseHead(Variant):
    """Settings of a base with dense layers on its flattened map.

    Attributes:
        hidden: number of dense layers before the last.
        width: number of units of each of them.
    """

    hidden: int = 3
    width: int = 4096
    output: str = "sigmoid"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.hidden >= 0, "hidden", "0 or more layers")
        self.require(self.width >= 1, "width", "1 or more")

    @property
    def new_head(self) -> bool:
        return True
