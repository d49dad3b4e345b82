"""What training hands to a defense, and what it expects of one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from robustbench_tin.data.base import Split
from robustbench_tin.errors import InvalidSettingError


def no_other(name: str) -> nn.Module:
    """The answer of a training that was handed no other classifiers.

    Raises:
        InvalidSettingError: always.
    """
    raise InvalidSettingError(
        f"training got no trained classifier '{name}'; expected train(..., trained=...) to return it"
    )


Objective = Callable[[], Tensor]
"""Asks the classifier at its weights of now; gives the scalar that training minimises, with its graph."""

Gradients = Callable[[], Tensor]
"""Puts the objective's gradients, at the weights as they are now, into ``.grad`` and gives its value."""


@dataclass
class Context:
    """Where training stands, for a defense's hooks.

    Attributes:
        generator: the defense's only source of randomness, on :attr:`device`.
        device: where batches live.
        num_classes: of the classifier.
        epochs: how many there will be.
        steps_per_epoch: optimiser steps in the current one; 0 until the training set is prepared.
        step: optimiser steps taken so far, over all epochs.
        epoch: the current one, from 0.
        first_row: where the images that an objective is made for begin in the step's batch; not 0 only where
            the batch is taken in parts for want of memory.
        label_smoothing: of what the weights learn; how images are fooled knows none.
        memory: what a defense keeps from one step to the next, by names of its own; checkpoints hold it.
        note: says a line that belongs into the run's record (counts, skipped images).
        trained: gives another trained classifier by what a defense's ``sources`` call it.
    """

    generator: torch.Generator
    device: torch.device
    num_classes: int
    epochs: int
    note: Callable[[str], None]
    trained: Callable[[str], nn.Module] = no_other
    steps_per_epoch: int = 0
    step: int = 0
    epoch: int = 0
    first_row: int = 0
    label_smoothing: float = 0.0
    memory: dict[str, Tensor] = field(default_factory=dict)

    def host_generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU for this step, whatever :attr:`device` is: its draws wait for no device.

        Args:
            purpose: draws for different purposes are unlike.
        """
        text = f"{self.generator.initial_seed()} {self.step} {purpose}"
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
        return torch.Generator().manual_seed(seed)


class TrainingHooks(Protocol):
    """The hooks of a defense that training calls; :class:`robustbench_tin.defenses.Defense` has them."""

    @property
    def replays(self) -> int:
        """How often each batch is trained on before the next."""

    @property
    def single_step(self) -> bool:
        """Whether its images are made in one step, which training watches for catastrophic overfitting."""

    def prepare(self, train: Split, context: Context) -> Split:
        """Change the training set, once, before the first epoch."""

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Change a batch: float32 ``(N, 3, H, W)`` in [0, 1] and labels, on the device.

        Labels come as int64 ``(N,)``, or as probabilities float32 ``(N, C)`` from a hook before that mixed
        images; they may leave as either, and the loss takes both.
        """

    def objective(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Objective:
        """What training minimises on a batch; whatever is made of its images is made now, once.

        Labels are int64 ``(N,)`` or probabilities float32 ``(N, C)``.
        """

    def around_step(self, classifier: nn.Module, gradients: Gradients, context: Context) -> Tensor:
        """Get the gradients of one optimiser step, at these weights or at others near them."""

    def after_epoch(self, classifier: nn.Module, context: Context) -> bool:
        """Look at where training stands; True ends it."""
