"""Adversarial weight perturbation: the gradient is computed at nearby, worse weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_tin.defenses.base import Defense
from robustbench_tin.training.context import Context, Gradients

TINY = 1e-12


@dataclass(frozen=True)
class AdversarialWeightPerturbation(Defense):
    """Move each kernel up the loss by a fraction of its norm, compute the gradient there, and move it back.

    Wu, Xia and Wang, 2020, "Adversarial Weight Perturbation Helps Robust Generalization", arXiv 2004.05884:
    gamma 0.005. Combine it with a defense that makes adversarial images: ``awp+trades``, ``awp+pgd-at``. The
    images are made at the original weights. Batch norm's running statistics learn only from the second pass,
    as with the paper's proxy model. The optimiser's step, weight decay included, starts from the original
    weights.

    Attributes:
        gamma: length of the move, as a fraction of each kernel's norm, more than 0.
        warmup: number of epochs before it begins (in the paper: 10 of 200 with TRADES).
    """

    name: ClassVar[str] = "awp"
    relative_cost: ClassVar[float] = 1.2

    gamma: float = 0.005
    warmup: int = 0

    def __post_init__(self) -> None:
        self.require(0 < self.gamma < math.inf, "gamma", "more than 0")
        self.require(self.warmup >= 0, "warmup", "0 or more epochs")

    def around_step(self, classifier: nn.Module, gradients: Gradients, context: Context) -> Tensor:
        if context.epoch < self.warmup:
            return gradients()
        kernels = [weight for weight in classifier.parameters() if weight.requires_grad and weight.ndim > 1]
        with _kept([*classifier.buffers(), *context.memory.values()]):
            gradients()
        with _kept(kernels):
            with torch.no_grad():
                for kernel in kernels:
                    if kernel.grad is not None:
                        length = self.gamma * kernel.norm() / (kernel.grad.norm() + TINY)
                        kernel.add_(kernel.grad * length)
            return gradients()


@contextmanager
def _kept(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore the exact values of the tensors on exit."""
    copies = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
