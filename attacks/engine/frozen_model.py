"""The life cycle of a model under attack: frozen, in exact float32, and restored afterwards."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

import torch
from torch import nn

from robustbench_tin.attacks.engine.rng import own_randomness, seed_randomness
from robustbench_tin.attacks.engine.saved_state import SavedState
from robustbench_tin.strict_float32 import exact_float32

# Random states and the float precision belong to the process, modes and buffers to the model, so only one
# thread attacks at a time. Reentrant: an attacked model may be entered within another.
_TURN = threading.RLock()


class FrozenModels:
    """Models in eval mode with frozen parameters; on exit, they and the state of the process are restored.

    Inside, the random states of torch, NumPy and Python are seeded, float32 is exact, and a caller's autocast
    and inference mode are off. Other threads wait until this one has left.

    Args:
        models: the models; they may share modules and tensors.
        device: the device of the models.
        seed: seed of the random states.
    """

    def __init__(self, models: Sequence[nn.Module], device: torch.device, seed: int) -> None:
        self._models = models
        self._device = device
        self._seed = seed

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            entered.enter_context(_TURN)
            entered.enter_context(own_randomness(self._device))
            entered.enter_context(exact_float32())
            entered.enter_context(torch.inference_mode(False))
            for kind in ("cpu", "cuda"):  # a caller's autocast would lower the precision of the verification
                entered.enter_context(torch.autocast(kind, enabled=False))
            self._kept = entered.enter_context(SavedState(self._models))
            self.reseed(self._seed)
            self._restore = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore.close()

    def reseed(self, *key: int | str) -> None:
        """Seed the random states with a key; only inside."""
        seed_randomness(self._device, *key)

    def thaw(self) -> bool:
        """Let the parameters learn again, for models that adapt themselves at each call.

        Returns:
            False if none was frozen.
        """
        return self._kept.thaw()
