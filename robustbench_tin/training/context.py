"""What training hands to a defense, and what it expects of one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass
class Context:
    """Where training stands, for a defense's hooks.

    Attributes:
        generator: the defense's only source of randomness, on :attr:`device`.
        device: where batches live.
        num_classes: of the classifier.
        epochs: how many there will be.
        steps_per_epoch: optimiser steps in each; 0 until the training set is prepared.
        step: optimiser steps taken so far, over all epochs.
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

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return self.step // self.steps_per_epoch if self.steps_per_epoch else 0

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

    def prepare(self, train: Split, context: Context) -> Split:
        """Change the training set, once, before the first epoch."""

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Change a batch: float32 ``(N, 3, H, W)`` in [0, 1] and labels, on the device.

        Labels come as int64 ``(N,)``, or as probabilities float32 ``(N, C)`` from a hook before that mixed
        images; they may leave as either, and the loss takes both.
        """

    def loss(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        """The scalar that training minimises; labels int64 ``(N,)`` or probabilities float32 ``(N, C)``."""
