"""The losses and gradient norms of an epoch, kept on the device, so that the loop need not wait for them."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_tin.training.recipe import TrainingFailure

# What led to a loss that is not finite is told by so many steps before it.
_TOLD = 3


class Losses:
    """What the steps of one epoch cost.

    Args:
        steps: in the epoch.
        device: where the losses are.

    Attributes:
        values: float32 ``(2, steps)``: loss and gradient norm of each step, zero for those to come.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        self.values = torch.zeros(2, steps, device=device)

    def record(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Keep those of a step of this epoch, from 0."""
        self.values[0, step] = loss.detach()
        self.values[1, step] = norm

    def require_finite(self, done: int, *, epoch: int, lr: float) -> None:
        """Look at the first ``done`` steps; this waits for the device.

        Raises:
            TrainingFailure: where a loss is not finite; it says what led to it.
        """
        finite = self.values[0, :done].isfinite()
        if bool(finite.all()):
            return
        first = int(finite.logical_not().nonzero()[0])
        before = [
            f"{loss:.3g} ({norm:.2g})" for loss, norm in self.values[:, max(0, first - _TOLD) : first].T
        ]
        told = f" after losses (gradient norms) of {', '.join(before)}" if before else ""
        raise TrainingFailure(
            f"the training loss was no longer finite at step {first + 1} of epoch {epoch + 1}{told} at a"
            f" learning rate of {lr:.2g}; try a lower --lr"
        )

    def mean(self) -> float:
        """The mean loss of the epoch."""
        return self.values[0].mean().item()
