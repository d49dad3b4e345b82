"""Losses, gradient norms and accuracies of an epoch's steps, kept on the device without waiting for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustbench_tin.runtime import is_asynchronous
from robustbench_tin.training.recipe import TrainingFailure

# Number of steps before a loss that is not finite that the error message shows.
_TOLD = 3


class Losses:
    """The losses, gradient norms and right predictions of an epoch's steps.

    Args:
        steps: number of steps in the epoch.
        device: device of the losses.

    Attributes:
        values: float32 ``(4, steps)``: loss, gradient norm, and number of right predictions, top-1 and top-5,
            of each step; zero for later steps.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        self.values = torch.zeros(4, steps, device=device, dtype=torch.float32)
        # A running copy to the host, the number of steps in it, and the event that follows it.
        self._under_way: tuple[Tensor, int, Any] | None = None

    def record(self, step: int, loss: Tensor, norm: Tensor, right: Tensor) -> None:
        """Save the values of a step of this epoch, from 0."""
        self.values[0, step] = loss.detach()
        self.values[1, step] = norm
        self.values[2:, step] = right

    def glance(self, done: int, *, epoch: int, lr: float) -> None:
        """Check the steps so far without waiting for the device.

        On a CPU, all values are available. A GPU starts a copy, which a later call checks after its arrival.
        Other devices are checked by :meth:`require_finite`.

        Raises:
            TrainingFailure: as :meth:`require_finite`.
        """
        if not is_asynchronous(self.values.device):
            self.require_finite(done, epoch=epoch, lr=lr)
        elif self.values.device.type == "cuda":
            if self._under_way is not None:
                values, copied, event = self._under_way
                if not event.query():
                    return
                _require_finite(values[:, :copied], epoch=epoch, lr=lr)
            host = torch.empty_like(self.values, device="cpu", pin_memory=True).copy_(
                self.values, non_blocking=True
            )
            come = torch.cuda.Event()  # type: ignore[no-untyped-call]
            come.record()
            self._under_way = host, done, come

    def require_finite(self, done: int, *, epoch: int, lr: float) -> None:
        """Check the first ``done`` steps; this waits for the device.

        A gradient that is not finite counts like the loss: the weights that it moved are lost, although no
        loss has shown it yet. All processes of a group see it, because they share the gradient.

        Raises:
            TrainingFailure: if a loss or a gradient is not finite; shows the steps before it.
        """
        _require_finite(self.values[:, :done], epoch=epoch, lr=lr)

    def mean(self) -> float:
        """The mean loss of the epoch."""
        return self.values[0].mean().item()

    def accuracy(self, images: float) -> tuple[float, float]:
        """Top-1 and top-5 of an epoch with this number of images; NaN if no logits were seen."""
        top1, top5 = (self.values[2:].sum(dim=1) / images).tolist()
        return top1, top5


def _require_finite(values: Tensor, *, epoch: int, lr: float) -> None:
    finite = values[:2].isfinite()
    if bool(finite.all()):
        return
    first = int(finite.all(dim=0).logical_not().nonzero()[0])
    what = "gradient" if bool(finite[0, first]) else "training loss"
    before = [f"{loss:.3g} ({norm:.2g})" for loss, norm in values[:2, max(0, first - _TOLD) : first].T]
    told = f" after losses (gradient norms) of {', '.join(before)}" if before else ""
    raise TrainingFailure(
        f"the {what} was no longer finite at step {first + 1} of epoch {epoch + 1}{told} at a"
        f" learning rate of {lr:.2g}; try a lower --lr"
    )
