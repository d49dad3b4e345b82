"""Checkpoints: the complete state of a training in one file, written atomically, without pickle."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robustbench_tin.atomic import replacing
from robustbench_tin.errors import OutOfTimeError, RunError

# After an epoch, a checkpoint is written only if this fraction of the minutes has passed since the last one.
_SOON = 0.1


@dataclass(frozen=True)
class Saved:
    """The content of a checkpoint.

    Attributes:
        tensors: tensors by names of the form ``OWNER/NAME``.
        facts: the rest, as JSON.
    """

    tensors: Mapping[str, Tensor]
    facts: dict[str, Any]

    def of(self, owner: str) -> dict[str, Tensor]:
        """The tensors of one owner, by their names without the owner."""
        prefix = f"{owner}/"
        return {
            name.removeprefix(prefix): value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }


class Checkpoint:
    """The checkpoint file of one training, and the time to write it.

    Args:
        path: the path of the file.
        minutes: minutes between two checkpoints within an epoch; after an epoch, a tenth of that is enough.
            0 means after every batch.
        stop_at: time on the monotonic clock, in seconds; the first checkpoint after it ends the training.
    """

    def __init__(self, path: Path, minutes: float = 10.0, *, stop_at: float = math.inf) -> None:
        self.path = path
        self._seconds = 60 * minutes
        self._stop_at = stop_at
        self._last = time.monotonic()

    def due(self, *, epoch_over: bool) -> bool:
        """True if it is time to write a checkpoint."""
        now = time.monotonic()
        passed = now - self._last
        return now >= self._stop_at or passed >= (_SOON * self._seconds if epoch_over else self._seconds)

    def save(self, saved: Saved) -> None:
        """Replace the last checkpoint.

        Raises:
            RunError: if the disk is full or the path cannot be written.
            OutOfTimeError: if it is time to stop; the checkpoint is written.
        """
        # Copies, because safetensors accepts neither shared storage nor channels-last strides.
        tensors = {
            name: value.detach().to("cpu", copy=True).contiguous() for name, value in saved.tensors.items()
        }
        with replacing(self.path) as beside:
            try:
                save_file(tensors, beside, {"facts": json.dumps(saved.facts)})
            except SafetensorError as error:  # for example a full disk
                raise OSError(str(error)) from error
        self._last = time.monotonic()
        if self._last >= self._stop_at:
            raise OutOfTimeError("0 s are left; the checkpoint is written")

    def load(self, device: torch.device) -> Saved | None:
        """The last checkpoint; None if there is no file.

        Raises:
            RunError: if the file is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt", device=str(device)) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                facts = json.loads(file.metadata()["facts"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"checkpoint '{self.path}' is damaged ({' '.join(str(error).split())[:120]}); remove it to"
                " train that cell from the start"
            ) from error
        return Saved(tensors, facts)

    def remove(self) -> None:
        """Remove the file: the training has finished and its weights are saved."""
        self.path.unlink(missing_ok=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state, by the parameter's number and the value's name."""
    return {
        f"{number}.{name}": value
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state, each value in its parameter's memory layout, because kernels read both together."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        like = parameters[int(number)]
        if value.ndim > 0:
            if value.shape != like.shape:
                raise RunError(
                    f"the checkpoint has optimiser state of shape {tuple(value.shape)}; expected"
                    f" {tuple(like.shape)}: another version of robust-tin wrote it; remove it to train again"
                )
            value = torch.empty_like(like).copy_(value)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_states(generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """The random states of a training: its generator's and torch's own."""
    states = {"generator": generator.get_state(), "cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random(generator: torch.Generator, device: torch.device, states: Mapping[str, Tensor]) -> None:
    """Restore the random states."""
    generator.set_state(states["generator"].cpu())
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
