"""The recipe of a training, and its record."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.options import refuse, types_of
from robustbench_tin.training.settings import WEIGHT_DECAY, TrainingSettings
from robustbench_tin.training.stages import Stage, parse_stages

SGD_LR = 0.1
"""The default peak learning rate for ``sgd``, from papers on adversarial training."""


class TrainingFailure(RuntimeError):  # noqa: N818 - a cell's "failed", in the project's words
    """Training cannot continue; the cell has failed and is not measured."""


@dataclass(frozen=True)
class Recipe(TrainingSettings):
    """The settings of the training loop, with a value for each.

    Attributes:
        epochs: passes over the prepared training set.
        batch_size: images per step, or slightly more: an epoch is cut into steps of equal size.
        lr: the schedule's highest learning rate.
        warmup: fraction of a one-cycle schedule's steps in which the rate rises, from 0 to below 1.

    Raises:
        InvalidSettingError: for a value out of its range, or two that exclude each other.
    """

    epochs: int = field()
    batch_size: int = field()
    lr: float = field()
    warmup: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.warmup < 1:
            refuse("warmup", self.warmup, "0 to below 1")
        if self.clean_epochs > self.epochs:
            refuse("clean_epochs", self.clean_epochs, f"0 to {self.epochs}, the epochs")
        if self.average == "swa" and self.early_stop is not None:
            raise InvalidSettingError(
                "got average 'swa' and early-stop; swa averages the last quarter of the epochs, which early"
                " stopping may never reach: give one of them, or 'ema'"
            )
        self.stages  # noqa: B018 - raises if the stages are invalid

    @property
    def decay(self) -> float:
        """The weight decay that applies."""
        return WEIGHT_DECAY[self.optimizer] if self.weight_decay is None else self.weight_decay

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages: the trained part, its epochs and its rate; their epochs add up to all."""
        return parse_stages(self.train, self.epochs)


SETTINGS = tuple(name for name in types_of(TrainingSettings) if name not in ("epochs", "batch_size", "lr"))
"""The fields of a recipe that a user sets for all cells, by the names of their options."""


@dataclass(frozen=True)
class TrainingRecord:
    """The record of a training, for the run's records.

    Attributes:
        images: number of images in the prepared training set.
        steps: number of optimiser steps.
        seconds: wall-clock time, preparation included, summed over all interruptions.
        loss: mean training loss of the last epoch.
        notes: lines from the defense or the loop.
    """

    images: int
    steps: int
    seconds: float
    loss: float
    notes: tuple[str, ...]
