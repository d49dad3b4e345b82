"""The state of an iterative attack: one row an image, and one step."""

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
    """Base of dataclasses with one row an image.

    Each field that is a tensor, a ball or another batch state has a row an image. All rows share the other
    fields. If an image is done, its row is removed and a waiting image takes its place.
    """

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, given by a bool mask ``(N,)`` or by their numbers."""
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
        """Append the rows of another state of the same class."""
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
    """The inputs of an iterative attack: images, labels, ball, criterion and random generator.

    Attributes:
        labels: true labels, int64 ``(N,)``.
        ball: the allowed points around the clean images; ``ball.images`` are the clean images.
        clean_logits: the model's logits of the clean images, float32 ``(N, C)``; ``(N, 0)`` under a fixed
            budget unless the attack sets ``needs_clean_logits``.
        criterion: decides from logits and labels if an image is adversarial.
        generator: the only source of randomness, on the images' device.
    """

    labels: Tensor
    ball: Ball
    clean_logits: Tensor
    criterion: Criterion
    generator: torch.Generator


@dataclass
class ModelOutput(BatchState):
    """The model's output at the current points.

    Attributes:
        logits: float32 ``(N, C)``.
        losses: float32 ``(N,)``; None if the query was without gradients.
        gradient: gradient of each row's loss with respect to its point, float32 ``(N, C, H, W)``; None if the
            query was without gradients.
    """

    logits: Tensor
    losses: Tensor | None = None
    gradient: Tensor | None = None


@dataclass
class AttackState(BatchState, ABC):
    """The state of an iterative attack on a batch, one row an image.

    The engine repeats three steps. It queries the model at :attr:`points`. It removes the rows whose image is
    adversarial there. It calls :meth:`move` with the model's output for the other rows. A row ends when it
    has no queries left.

    Attributes:
        inputs: the inputs of the attack.
        points: the points of the next query, float32 ``(N, C, H, W)``.
        queries_left: number of queries left, int64 ``(N,)``; each :meth:`move` must subtract 1 from every
            row.
    """

    precise: ClassVar[bool] = False
    """True if lower precision would mislead the search, because it compares nearly equal numbers."""

    inputs: AttackInputs
    points: Tensor
    queries_left: Tensor

    def __len__(self) -> int:
        return len(self.queries_left)

    def run_to_end(self, attacked: AttackedModel) -> Tensor:
        """Make all queries that are left, and return the final images, float32 ``(N, C, H, W)``.

        The host does not wait for the device between the queries.
        """
        for _ in range(int(self.queries_left.max())):
            self.move(self.ask(attacked))
        return self.result()

    def ask(self, attacked: AttackedModel) -> ModelOutput:
        """Query the model at :attr:`points`: logits, losses and their gradients unless overridden."""
        return attacked.ask(self.points, self.loss, precise=self.precise)

    def loss(self, logits: Tensor, rows: slice) -> Tensor:
        """The loss to maximise, ``(n,)``, from the logits ``(n, C)`` of the rows in this slice."""
        raise NotImplementedError

    @abstractmethod
    def move(self, answer: ModelOutput) -> None:
        """Take one step: set the next :attr:`points` and subtract 1 from :attr:`queries_left`.

        After the last query, the points are the final ones.

        Args:
            answer: the model's output at the present points.
        """

    def result(self) -> Tensor:
        """The final images of a fixed budget, float32 ``(N, C, H, W)``; the last points unless overridden."""
        return self.points
