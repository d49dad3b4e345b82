"""What training hands to a defense, and what it expects of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.data.base import Split

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
        label_smoothing: see :meth:`cross_entropy`.
        memory: what a defense keeps from one step to the next, by names of its own; checkpoints hold it.
        note: says a line that belongs into the run's record (counts, skipped images).
    """

    generator: torch.Generator
    device: torch.device
    num_classes: int
    epochs: int
    note: Callable[[str], None]
    steps_per_epoch: int = 0
    step: int = 0
    epoch: int = 0
    first_row: int = 0
    label_smoothing: float = 0.0
    memory: dict[str, Tensor] = field(default_factory=dict)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy that weights are trained on, with the loop's label smoothing.

        Smoothing belongs to what the weights learn; adversarial images are made against the labels as they
        are, by a loss without it.
        """
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


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
        """Change a batch: float32 ``(N, 3, H, W)`` in [0, 1] and labels, on the device."""

    def objective(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Objective:
        """What training minimises on a batch; whatever is made of its images is made now, once."""

    def around_step(self, classifier: nn.Module, gradients: Gradients, context: Context) -> Tensor:
        """Get the gradients of one optimiser step, at these weights or at others near them."""

    def after_epoch(self, classifier: nn.Module, context: Context) -> bool:
        """Look at where training stands; True ends it."""
