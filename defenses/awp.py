"""Adversarial weight perturbation: the gradient is taken where the weights are worst, nearby."""

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
    """Move each kernel up the loss by a part of its own length, take the gradient there, and move it back.

    Wu, Xia and Wang, 2020, "Adversarial Weight Perturbation Helps Robust Generalization", arXiv 2004.05884:
    gamma 0.005. It goes on top of a defense that makes adversarial images: ``awp+trades``, ``awp+pgd-at``;
    the images stay those made at the weights before. Batch norm's running statistics learn from the
    second pass only, as with their proxy model; the optimiser's step, its weight decay too, is taken
    from the weights as they were.

    Attributes:
        gamma: length of the move, as a part of each kernel's.
        warmup: epochs before it begins (theirs: 10 of 200 with TRADES).
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
    """Whatever happens inside, each tensor holds afterwards the very values that it held before."""
    copies = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
