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
    """The processes that train together; of one alone, nothing here does anything.

    After each backward pass the gradients are those of the whole batch, by DistributedDataParallel, so that
    every process takes the same steps. What is drawn at random is drawn by each process for its share,
    anew at each step from the seed, the step and the process: a training that goes on draws the same.

    Attributes:
        rank: of this process, from 0; that one says, measures and writes everything.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that says, measures and writes."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of a batch."""
        return rows.tensor_split(self.size)[self.rank] if self.size > 1 else rows

    def weight(self, images: int, batch: int) -> float:
        """What to multiply the mean loss of this share with, so that the processes' mean is the batch's."""
        return self.size * images / batch

    def reseed(self, generator: torch.Generator, seed: int, step: int) -> None:
        """Draws of this process for a step; torch's own, which dropout takes, too."""
        if self.size > 1:
            digest = hashlib.blake2b(f"{seed} {step} {self.rank}".encode(), digest_size=8).digest()
            drawn = int.from_bytes(digest) >> 1
            generator.manual_seed(drawn)
            torch.manual_seed(drawn)

    def synchronised(self, classifier: nn.Module) -> Callable[[Objective], Tensor]:
        """Asks an objective such that its backward pass ends in the gradients of the whole batch.

        To be made anew when other parameters are trained.
        """
        if self.size == 1:
            return lambda objective: objective()
        with warnings.catch_warnings():
            # What is to take its place copies the buffers at the start, and torch 2.4 does not know it.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            # Running statistics follow each process's own batches, but for those that are synchronised: on
            # GPUs.
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
        """What the first process says; the others wait for it.

        Raises:
            RunError: where a process has stopped meanwhile.
        """
        if self.size == 1:
            return what
        said = [what]
        try:
            distributed.broadcast_object_list(said, src=0)
        except RuntimeError as error:
            raise RunError(
                f"process {self.rank} of torchrun ends, because another one has; that one's message says why"
            ) from error
        return said[0]


SINGLE_PROCESS = ProcessGroup()
"""One process."""


class _ObjectiveModule(nn.Module):
    """Runs an objective in its forward pass: how a classifier is asked is the defense's affair."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, objective: Objective) -> Tensor:
        return objective()


def group_size(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes ``torchrun`` started for this command; 1 without it."""
    return int(environment.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in environment else 1


@contextmanager
def joined(device: str | None) -> Iterator[ProcessGroup]:
    """The team of this process, while the block lasts; each takes a GPU of its own where there are any.

    Args:
        device: as a user asked for it.

    Raises:
        InvalidSettingError: for one GPU that all are to share, or more processes than GPUs.
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
                f" {torch.cuda.device_count()} GPUs; expected one process a GPU at most"
            )
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield ProcessGroup(rank, distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def with_synchronised_statistics(classifier: nn.Module) -> nn.Module:
    """The classifier with batch norm over the whole batch, in the place of each process's share."""
    from timm.layers.norm_act import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(classifier)  # type: ignore[no-untyped-call]
    return converted
