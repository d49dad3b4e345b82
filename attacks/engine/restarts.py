"""Restarts: several independent starts of an attack; the worst result for the model counts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack, IterativeAttack
from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.threat import Ball


@dataclass(frozen=True, kw_only=True)
class WithRestarts(Attack):
    """An attack with independent starts. A subclass defines :meth:`tries`.

    If the attack stops on success, each start is a stage on the images that survived the stages before. With
    a fixed budget, every image gets all starts, and its result with the highest :meth:`score` counts.

    Attributes:
        restarts: number of independent starts, at least 1.
    """

    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.restarts >= 1, "restarts", "1 or more")

    def starts(self, classes: int) -> Sequence[Self]:
        """The attacks with a single start each that make up this attack.

        Args:
            classes: number of classes of the model.
        """
        return [replace(self, restarts=1)] * self.restarts

    def stages(self, classes: int) -> Sequence[Attack]:
        return self.starts(classes)

    @abstractmethod
    def tries(
        self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """The result of each start, float32 ``(N, C, H, W)``; the arguments are those of :meth:`run`."""

    def score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The badness of logits for the model, ``(N,)``; the criterion's margin unless overridden.

        Args:
            logits: ``(N, classes)``.
            labels: true labels, int64 ``(N,)``.
        """
        return self.goal.margin(logits, labels)

    def run(self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return worst_of(
            self.tries(attacked, labels, ball, generator),
            lambda images: self.score(attacked.logits(images), labels),
        )


@dataclass(frozen=True, kw_only=True)
class IterativeWithRestarts(WithRestarts, IterativeAttack):
    """An iterative attack with independent starts. A subclass defines :meth:`begin`."""

    def tries(
        self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator
    ) -> Iterator[Tensor]:
        inputs = self.inputs(attacked, labels, ball, generator)
        for start in self.starts(inputs.clean_logits.shape[1]):
            yield start.begin(inputs).run_to_end(attacked)


def worst_of(tries: Iterable[Tensor], score: Callable[[Tensor], Tensor]) -> Tensor:
    """For each image, the result with the highest score; if scores are equal, the earlier one.

    Args:
        tries: one or more results, each float32 ``(N, C, H, W)``.
        score: from a result to its scores ``(N,)``; not called if there is only one result.

    Returns:
        float32 ``(N, C, H, W)``.

    >>> tries = [torch.full((1, 1, 1, 1), value) for value in (0.2, 0.7, 0.4)]
    >>> worst_of(tries, lambda images: images.flatten(1).amax(dim=1)).item() == tries[1].item()
    True
    """
    rest = iter(tries)
    worst = next(rest)
    highest: Tensor | None = None
    for other in rest:
        if highest is None:
            highest = score(worst)
        scored = score(other)
        worst = torch.where((scored > highest).view(-1, 1, 1, 1), other, worst)
        highest = torch.maximum(scored, highest)
    return worst
