"""Several processes that train one classifier together, each on its share of every batch."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from robustbench_tin.errors import InvalidSettingError, RunError
from robustbench_tin.training.context import Objective

# While the first process measures, the others wait for the next training.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together; with a single process, every method does nothing.

    After each backward pass, DistributedDataParallel makes the gradients those of the whole batch, so every
    process takes the same steps. Each process draws random numbers for its share, seeded at each step from
    the seed, the step and the process: a resumed training draws the same numbers.

    Attributes:
        rank: number of this process, from 0; process 0 prints, measures and writes everything.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """True for the process that prints, measures and writes."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of a batch."""
        return rows.tensor_split(self.size)[self.rank] if self.size > 1 else rows

    def weight(self, images: int, batch: int) -> float:
        """The factor of this share's mean loss that makes the processes' mean equal the batch's mean."""
        return self.size * images / batch

    def reseed(self, generator: torch.Generator, seed: int, step: int) -> None:
        """Seed this process's random numbers for a step, including torch's own, which dropout uses."""
        if self.size > 1:
            digest = hashlib.blake2b(f"{seed} {step} {self.rank}".encode(), digest_size=8).digest()
            drawn = int.from_bytes(digest) >> 1
            generator.manual_seed(drawn)
            torch.manual_seed(drawn)

    def synchronised(self, classifier: nn.Module) -> Callable[[Objective], Tensor]:
        """A function that evaluates an objective so that its backward pass gives the whole batch's gradients.

        Call this method again if other parameters are trained.
        """
        if self.size == 1:
            return lambda objective: objective()
        with warnings.catch_warnings():
            # Its replacement copies the buffers at the start, and torch 2.4 does not have it.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            # Running statistics follow each process's own batches, except if they are synchronised (on GPUs).
            return DistributedDataParallel(
                _ObjectiveModule(classifier), broadcast_buffers=False, find_unused_parameters=True
            )

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.size > 1:
            distributed.all_reduce(values)
            values = values / self.size
        return values

    def broadcast(self, what: Any = None) -> Any:
        """The value of the first process; the others wait for it.

        Raises:
            RunError: if a process has stopped in the meantime.
        """
        if self.size == 1:
            return what
        said = [what]
        try:
            distributed.broadcast_object_list(said, src=0)
        except RuntimeError as error:
            raise RunError(
                f"process {self.rank} of torchrun ends because another process ended; see that one's message"
            ) from error
        return said[0]


SINGLE_PROCESS = ProcessGroup()
"""One process."""


class _ObjectiveModule(nn.Module):
    """Runs an objective in its forward pass, because the defense decides how the classifier is called."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, objective: Objective) -> Tensor:
        return objective()


def group_size(environment: Mapping[str, str] = os.environ) -> int:
    """Number of processes that ``torchrun`` started for this command; 1 without it."""
    return int(environment.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in environment else 1


@contextmanager
def joined(device: str | None) -> Iterator[ProcessGroup]:
    """The process group inside the block; each process takes a GPU of its own if there are GPUs.

    Args:
        device: the device option as the user gave it.

    Raises:
        InvalidSettingError: for one GPU that all processes would share, or more processes than GPUs.
    """
    if group_size() == 1:
        yield SINGLE_PROCESS
        return
    rank, place = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if device not in (None, "cuda"):
            raise InvalidSettingError(
                f"device got '{device}' under torchrun; expected cuda or cpu: each process takes its own GPU"
            )
        if place >= torch.cuda.device_count():
            raise InvalidSettingError(
                f"torchrun started {os.environ['LOCAL_WORLD_SIZE']} processes on a machine with"
                f" {torch.cuda.device_count()} GPUs; expected at most one process per GPU"
            )
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield ProcessGroup(rank, distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def with_synchronised_statistics(classifier: nn.Module) -> nn.Module:
    """The classifier with batch norm over the whole batch instead of each process's share."""
    from timm.layers.norm_act import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(classifier)  # type: ignore[no-untyped-call]
    return converted
