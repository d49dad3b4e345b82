"""A search: what an iterative attack is to the runner, rows of state and one step."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.threat import Ball

if TYPE_CHECKING:
    from robustbench_tin.attacks.engine.attacked_model import AttackedModel


class BatchState:
    """A dataclass whose tensors and balls have a row an image; everything else is common to all rows.

    Rows come and go: an image that is done leaves, a waiting one takes its place.
    """

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows: a bool mask ``(N,)``, or their numbers."""
        index = rows.nonzero().squeeze(1) if rows.dtype == torch.bool else rows
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value: Any = getattr(self, field.name)
            if isinstance(value, Tensor):
                setattr(self, field.name, value.index_select(0, index))
            elif isinstance(value, Ball):
                setattr(self, field.name, value.select(index))
            elif isinstance(value, BatchState):
                value.keep(index)

    def extend(self, other: Self) -> None:
        """Put the rows of another of the same kind below these."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if isinstance(mine, Tensor):
                setattr(self, field.name, torch.cat([mine, theirs]))
            elif isinstance(mine, Ball):
                setattr(self, field.name, mine.join(theirs))
            elif isinstance(mine, BatchState):
                mine.extend(theirs)


@dataclass
class AttackInputs(BatchState):
    """What a search is about.

    Attributes:
        labels: true labels, int64 ``(N,)``.
        ball: what is allowed around the clean images.
        clean_logits: the model's logits of the clean images, float32 ``(N, C)``.
        criterion: what counts as broken.
        generator: the only source of randomness, on the images' device.
    """

    labels: Tensor
    ball: Ball
    clean_logits: Tensor
    criterion: Criterion
    generator: torch.Generator


@dataclass
class ModelOutput(BatchState):
    """What the model said at a search's points.

    Attributes:
        logits: float32 ``(N, C)``.
        losses: float32 ``(N,)``; None where no gradient was asked for.
        gradient: of each row's loss with respect to its point, float32 ``(N, ...)``; None likewise.
    """

    logits: Tensor
    losses: Tensor | None = None
    gradient: Tensor | None = None


@dataclass
class AttackState(BatchState, ABC):
    """A batch of images on their way, one row each.

    The runner asks the model at :attr:`points`, takes out the rows that are broken there, and lets the
    rest :meth:`move`. A row is over when nothing of its budget is left.

    Attributes:
        inputs: images, labels and what is allowed.
        points: where the model is asked next, float32 ``(N, C, H, W)``.
        queries_left: int64 ``(N,)``; each :meth:`move` takes one from every row.
    """

    precise: ClassVar[bool] = False
    """Whether a model of lower precision would mislead this search (it compares nearly equal numbers)."""

    inputs: AttackInputs
    points: Tensor
    queries_left: Tensor

    def __len__(self) -> int:
        return len(self.queries_left)

    def spend(self, attacked: AttackedModel) -> Tensor:
        """Take all questions that are left, and give what they end with, float32 ``(N, C, H, W)``.

        Nothing waits for the device between the first question and the last.
        """
        for _ in range(int(self.queries_left.max())):
            self.move(self.ask(attacked))
        return self.result()

    def ask(self, attacked: AttackedModel) -> ModelOutput:
        """Ask the model at :attr:`points`; logits, losses and their gradients unless overridden."""
        return attacked.ask(self.points, self.loss, precise=self.precise)

    def loss(self, logits: Tensor, rows: slice) -> Tensor:
        """What the search climbs, ``(N,)``; the logits are those of these rows."""
        raise NotImplementedError

    @abstractmethod
    def move(self, answer: ModelOutput) -> None:
        """Take one step: set the next :attr:`points`, the last time the final ones."""

    def result(self) -> Tensor:
        """What the fixed budget ends with, float32 ``(N, C, H, W)``; the last points unless overridden."""
        return self.points
