"""The interface between training and a defense: the context, and the hooks."""

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
    """The default for a training without other classifiers.

    Raises:
        InvalidSettingError: always.
    """
    raise InvalidSettingError(
        f"training got no trained classifier '{name}'; pass train(..., trained=...) a function that returns"
        " it"
    )


Objective = Callable[[], Tensor]
"""Evaluates the objective at the current weights: the scalar that training minimises, with its graph."""

Gradients = Callable[[], Tensor]
"""Writes the objective's gradients at the current weights into ``.grad`` and returns the objective."""


@dataclass
class Context:
    """The state of training, for a defense's hooks.

    Attributes:
        generator: the defense's only source of randomness, on :attr:`device`.
        device: the device of the batches.
        num_classes: number of classes of the classifier.
        epochs: number of epochs in all.
        steps_per_epoch: optimiser steps in the current epoch; 0 until the training set is prepared.
        step: optimiser steps taken so far, over all epochs.
        epoch: the current epoch, from 0.
        first_row: position in the step's batch of an objective's first image; not 0 only if the batch is
            split to save memory.
        label_smoothing: label smoothing of the training loss; adversarial images are made without it.
        memory: tensors that a defense keeps between steps, by names of its own; checkpoints include them.
        note: adds a line to the run's record (counts, skipped images).
        trained: returns another trained classifier by its name in a defense's ``sources``.
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
        """A generator on the CPU for this step, whichever :attr:`device` is used: it waits for no device.

        Args:
            purpose: different purposes get independent random numbers.
        """
        text = f"{self.generator.initial_seed()} {self.step} {purpose}"
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
        return torch.Generator().manual_seed(seed)


class TrainingHooks(Protocol):
    """The hooks of a defense that training calls; :class:`robustbench_tin.defenses.Defense` has them."""

    @property
    def replays(self) -> int:
        """Number of times that each batch is trained on before the next."""

    @property
    def single_step(self) -> bool:
        """True if its images are made in one step; training then watches for catastrophic overfitting."""

    def prepare(self, train: Split, context: Context) -> Split:
        """Change the training set, once, before the first epoch."""

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Change a batch: float32 ``(N, 3, H, W)`` in [0, 1] and labels, on the device.

        Labels are int64 ``(N,)``, or probabilities float32 ``(N, C)`` if an earlier hook mixed images. The
        hook may return either form, and the loss accepts both.
        """

    def objective(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Objective:
        """The objective of a batch; adversarial images are made now, once.

        Labels are int64 ``(N,)`` or probabilities float32 ``(N, C)``.
        """

    def around_step(self, classifier: nn.Module, gradients: Gradients, context: Context) -> Tensor:
        """Compute the gradients of one optimiser step, at these weights or at weights near them."""

    def after_epoch(self, classifier: nn.Module, context: Context) -> bool:
        """Inspect training after an epoch; True ends it."""
