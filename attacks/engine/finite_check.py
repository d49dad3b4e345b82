"""A check that logits and gradients are finite, without waiting for a GPU at each pass."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from robustbench_tin.attacks.engine.failure import AttackFailure
from robustbench_tin.runtime import is_asynchronous


class Checked(IntEnum):
    """The kind of the checked values; 0 stands for no fault."""

    LOGITS = 1
    GRADIENT = 2


_MESSAGES = {
    Checked.LOGITS: "the model's logits are not finite",
    Checked.GRADIENT: "the model's gradient is not finite",
}


class FiniteCheck:
    """Remembers the first values that were not finite.

    On a CPU the failure is raised at once. On other devices it stays on the device until :meth:`require`,
    because the host would have to wait for it.
    """

    def __init__(self) -> None:
        # The kind of the first fault since the last call of `require`, on the device; 0 for none.
        self._fault: Tensor | None = None

    def add(self, values: Tensor, kind: Checked) -> None:
        """Check some values.

        Raises:
            AttackFailure: on a CPU, if one is not finite.
        """
        fault = torch.isfinite(values.detach()).all().logical_not() * int(kind)
        self._fault = fault if self._fault is None else torch.where(self._fault > 0, self._fault, fault)
        if not is_asynchronous(values.device):
            self.require()

    def require(self) -> None:
        """Fail if any value since the last call was not finite; this waits for the device.

        Raises:
            AttackFailure: says whether logits or a gradient came first.
        """
        fault, self._fault = self._fault, None
        if fault is not None and (code := int(fault)):
            raise AttackFailure(_MESSAGES[Checked(code)])

    def clear(self) -> None:
        """Forget the values so far."""
        self._fault = None
