"""Several defenses as one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from robustbench_tin.data.base import Split
from robustbench_tin.defenses.base import Defense, NoiseVote
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.training.context import Context


@dataclass(frozen=True)
class Combination(Defense):
    """Defenses whose hooks run from left to right; at most one of them defines the loss."""

    name: ClassVar[str] = "combination"

    parts: tuple[Defense, ...] = ()

    def __post_init__(self) -> None:
        with_loss = [part.name for part in self.parts if part.defines_loss]
        if len(with_loss) > 1:
            raise InvalidSettingError(
                f"defense got '{self.spec}'; {' and '.join(map(repr, with_loss))} each define the training"
                " loss, combine only one of them"
            )
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise InvalidSettingError(f"defense got '{self.spec}'; name each defense once")

        wraps = [part for part in self.parts if part.wraps]
        for part, outer in pairwise(wraps):
            if part.certifies:
                raise InvalidSettingError(
                    f"defense got '{self.spec}'; what '{part.name}' certifies would not hold behind"
                    f" '{outer.name}', put '{part.name}' last"
                )

    @property
    def spec(self) -> str:
        return "+".join(part.spec for part in self.parts)

    def check(self, train: Split) -> None:
        for part in self.parts:
            part.check(train)

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(source for part in self.parts for source in part.sources))

    def prepare(self, train: Split, context: Context) -> Split:
        for part in self.parts:
            train = part.prepare(train, context)
        return train

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        for part in self.parts:
            images, labels = part.augment(images, labels, context)
        return images, labels

    def loss(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        chosen = next((part for part in self.parts if part.defines_loss), None)
        if chosen is None:
            return super().loss(classifier, images, labels, context)
        return chosen.loss(classifier, images, labels, context)

    @property
    def relative_cost(self) -> float:  # type: ignore[override]
        return math.prod(part.relative_cost for part in self.parts)

    @property
    def defines_loss(self) -> bool:
        return any(part.defines_loss for part in self.parts)

    @property
    def wraps(self) -> bool:
        return any(part.wraps for part in self.parts)

    def wrap(self, classifier: nn.Module) -> nn.Module:
        for part in self.parts:
            classifier = part.wrap(classifier)
        return classifier

    @property
    def certifies(self) -> bool:
        return any(part.certifies for part in self.parts)

    def noise_vote(self, classifier: nn.Module) -> NoiseVote | None:
        for part in self.parts:
            if part.certifies:
                return part.noise_vote(classifier)
            classifier = part.wrap(classifier)
        return None
