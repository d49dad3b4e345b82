"""How a classifier is trained, and the record that it leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.training.schedule import SCHEDULES
from robustbench_tin.training.stages import Stage, parse_stages

WEIGHT_DECAY = {"adamw": 0.05, "adam": 0.0, "sgd": 5e-4}
"""The optimisers, and the weight decay of each where none is given."""
SGD_LR = 0.1
"""The highest rate for ``sgd`` where none is given, as papers on adversarial training have it."""
AVERAGES = ("none", "ema", "swa")


class TrainingFailure(RuntimeError):  # noqa: N818 - a cell's "failed", in the project's words
    """Training cannot go on; the cell has failed, and nothing of it is measured."""


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        epochs: passes over the prepared training set.
        batch_size: images a step, or slightly more: an epoch is cut into steps of equal size.
        lr: the schedule's highest learning rate.
        optimizer: ``adamw``, ``adam``, or ``sgd`` with Nesterov's momentum of 0.9.
        weight_decay: on weights of two dimensions and more; None: the optimiser's of :data:`WEIGHT_DECAY`.
        schedule: one of :data:`robustbench_tin.training.schedule.SCHEDULES`.
        warmup: part of a one-cycle schedule's steps in which the rate rises.
        clip_norm: gradients longer than this are scaled back to it; 0: none are.
        label_smoothing: part of a label's weight that is spread over all classes.
        average: ``ema`` or ``swa``: end with an average of the weights; see :mod:`.averaging`.
        clean_epochs: epochs on the plain loss before the defense's begins.
        early_stop: hold a part of the training images out, stop after so many epochs without a higher
            robust accuracy on it, and end with the best; None: train to the end.
        train: what is trained, in stages; see :func:`robustbench_tin.training.stages.parse_stages`.
        head_rate: the head's learning rate, as a multiple of the others'.
        progressive: the side in pixels at which training begins, as a part of the full one; see
            :mod:`.progressive`.

    Raises:
        InvalidSettingError: for a value out of its range, or two that exclude each other.
    """

    epochs: int
    batch_size: int
    lr: float
    optimizer: str = "adamw"
    weight_decay: float | None = None
    schedule: str = "one-cycle"
    warmup: float = 0.25
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    average: str = "none"
    clean_epochs: int = 0
    early_stop: int | None = None
    train: str = "all"
    head_rate: float = 1.0
    progressive: float = 1.0

    def __post_init__(self) -> None:
        self._require(self.epochs >= 1, "epochs", "1 or more")
        self._require(self.batch_size >= 1, "batch_size", "1 or more")
        self._require(0 < self.lr < math.inf, "lr", "a number above 0, such as 0.001")
        self._require(self.optimizer in WEIGHT_DECAY, "optimizer", _either(WEIGHT_DECAY))
        self._require(0 <= self.decay < math.inf, "weight_decay", "0 or more")
        self._require(self.schedule in SCHEDULES, "schedule", _either(SCHEDULES))
        self._require(0 <= self.warmup < 1, "warmup", "0 to below 1")
        self._require(0 <= self.clip_norm < math.inf, "clip_norm", "0 or more")
        self._require(0 <= self.label_smoothing < 1, "label_smoothing", "0 to below 1")
        self._require(self.average in AVERAGES, "average", _either(AVERAGES))
        self._require(
            0 <= self.clean_epochs <= self.epochs, "clean_epochs", f"0 to {self.epochs}, the epochs"
        )
        self._require(self.early_stop is None or self.early_stop >= 1, "early_stop", "1 or more epochs")
        self._require(0 < self.head_rate < math.inf, "head_rate", "more than 0")
        self._require(0 < self.progressive <= 1, "progressive", "more than 0, at most 1, such as 0.5")
        if self.average == "swa" and self.early_stop is not None:
            raise InvalidSettingError(
                "got average 'swa' and early-stop; swa averages the last quarter of the epochs, which early"
                " stopping may never reach: give one of them, or 'ema'"
            )
        self.stages  # noqa: B018 - refuses what is none

    @property
    def decay(self) -> float:
        """The weight decay that applies."""
        return WEIGHT_DECAY[self.optimizer] if self.weight_decay is None else self.weight_decay

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is trained, for how many epochs, at what rate; their epochs add up to all."""
        return parse_stages(self.train, self.epochs)

    def _require(self, condition: bool, setting: str, expected: str) -> None:
        if not condition:
            given: Any = getattr(self, setting)
            raise InvalidSettingError(f"{setting.replace('_', '-')} got {given}; expected {expected}")


SETTINGS = tuple(
    field.name for field in fields(Recipe) if field.name not in ("epochs", "batch_size", "lr", "warmup")
)
"""The fields of a recipe that a user sets for all cells alike, by the names of their options."""


@dataclass(frozen=True)
class TrainingRecord:
    """What a training left behind, for the run's records.

    Attributes:
        images: size of the prepared training set.
        steps: optimiser steps taken.
        seconds: wall-clock time, preparation included, over all the times that it was gone on with.
        loss: mean training loss of the last epoch.
        notes: lines that the defense or the loop had to say.
    """

    images: int
    steps: int
    seconds: float
    loss: float
    notes: tuple[str, ...]


def _either(names: Any) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"
