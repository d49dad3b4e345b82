"""Several defenses as one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from robustbench_tin.data.base import Split
from robustbench_tin.defenses.base import Defense, NoiseVote
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import ThreatModel
from robustbench_tin.training.context import Context, Gradients, Objective


@dataclass(frozen=True)
class Combination(Defense):
    """Defenses whose hooks run from left to right; at most one of them defines the loss.

    Around a step, the leftmost part is outermost: in ``a+b``, ``b`` calls the gradients.
    """

    name: ClassVar[str] = "combination"

    parts: tuple[Defense, ...] = ()

    def __post_init__(self) -> None:
        with_loss = [part.name for part in self.parts if part.defines_loss]
        if len(with_loss) > 1:
            raise InvalidSettingError(
                f"defense got '{self.spec}'; {' and '.join(map(repr, with_loss))} each define the training"
                " loss, keep only one of them"
            )
        mixers = [part.name for part in self.parts if part.mixes_labels]
        for part in self.parts:
            if part.one_label and mixers:
                raise InvalidSettingError(
                    f"defense got '{self.spec}'; '{part.name}' needs one class for each image, but"
                    f" '{mixers[0]}' mixes labels, leave one of them out"
                )
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise InvalidSettingError(f"defense got '{self.spec}'; name each defense once")

        wraps = [part for part in self.parts if part.wraps]
        for part, outer in pairwise(wraps):
            if part.certifies:
                raise InvalidSettingError(
                    f"defense got '{self.spec}'; the certificate of '{part.name}' would not hold behind"
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
        return self.objective(classifier, images, labels, context)()

    def objective(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Objective:
        chosen = next((part for part in self.parts if part.defines_loss), None)
        if chosen is None:
            return lambda: Defense.loss(self, classifier, images, labels, context)
        return chosen.objective(classifier, images, labels, context)

    def around_step(self, classifier: nn.Module, gradients: Gradients, context: Context) -> Tensor:
        for part in reversed(self.parts):
            gradients = partial(part.around_step, classifier, gradients, context)
        return gradients()

    def after_epoch(self, classifier: nn.Module, context: Context) -> bool:
        ends = [part.after_epoch(classifier, context) for part in self.parts]
        return any(ends)

    @property
    def replays(self) -> int:
        return math.prod(part.replays for part in self.parts)

    @property
    def single_step(self) -> bool:  # type: ignore[override]
        return any(part.single_step for part in self.parts)

    @property
    def mixes_labels(self) -> bool:  # type: ignore[override]
        return any(part.mixes_labels for part in self.parts)

    @property
    def one_label(self) -> bool:  # type: ignore[override]
        return any(part.one_label for part in self.parts)

    @property
    def softmax_only(self) -> bool:  # type: ignore[override]
        return any(part.softmax_only for part in self.parts)

    @property
    def threat(self) -> ThreatModel | None:
        return next((part.threat for part in self.parts if part.threat is not None), None)

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
