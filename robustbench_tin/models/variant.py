"""What a backbone's spec may change about it: ``densenet169:size=128,interpolation=bicubic,cut=1``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robustbench_tin.specs import Configurable

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area")
OUTPUTS = ("sigmoid", "softmax")
STEMS = ("published", "3x3")


@dataclass(frozen=True)
class Variant(Configurable):
    """Settings that any backbone takes.

    Attributes:
        size: height and width in pixels at which the network sees images; None: the run's choice.
        interpolation: how images are resized to it, inside the classifier: one of :data:`INTERPOLATIONS`.
        cut: so many of the base's last stages are dropped; a new head stands on what is left.
        stem: ``3x3``: a first convolution for small images, without a stride and without pooling; of ResNets.
        output: ``sigmoid``: each class is trained against the rest; ``softmax``: all against each other.
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
        """Whether the base's own head goes."""
        return self.cut > 0

    @property
    def one_vs_rest(self) -> bool:
        """Whether each class is trained against the rest, under a sigmoid of its own."""
        return self.output == "sigmoid"


@dataclass(frozen=True)
class DenseHead(Variant):
    """Settings of a base with dense layers on its flattened map.

    Attributes:
        hidden: how many dense layers lie before the last.
        width: of each of them.
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
