"""Measuring one classifier: clean, and under one attack at several budgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.base import Attack, AttackFailure, Oracle
from robustbench_tin.benchmarks.records import OK
from robustbench_tin.errors import one_line
from robustbench_tin.metrics import in_top

OnImages = Callable[[int], None]


@dataclass(frozen=True)
class Outcomes:
    """One measure, image by image.

    Attributes:
        eps: its budget; 0 for the clean measure.
        top1: was the true label the top 1, bool ``(N,)``; None if the measure failed.
        top5: was it in the top 5, bool ``(N,)``; None if the measure failed.
        status: ``ok``, or why it failed.
        seconds: wall-clock time.
        forward_passes: summed over the images.
        backward_passes: summed over the images.
    """

    eps: float
    top1: npt.NDArray[np.bool_] | None
    top5: npt.NDArray[np.bool_] | None
    status: str
    seconds: float
    forward_passes: int
    backward_passes: int


@dataclass(frozen=True)
class Batches:
    """Labelled images, cut into batches of float32 on a device as they are asked for.

    Attributes:
        images: uint8 or float32 ``(N, 3, H, W)``; uint8 is divided by 255.
        labels: int64 ``(N,)``.
        size: images a batch.
        device: where the batches go.
    """

    images: Tensor
    labels: Tensor
    size: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.labels)

    def starts(self) -> range:
        """The first row of each batch."""
        return range(0, len(self), self.size)

    def at(self, start: int) -> tuple[Tensor, Tensor]:
        """The batch that starts at this row."""
        rows = slice(start, start + self.size)
        images = self.images[rows].to(self.device)
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        return images, self.labels[rows].to(self.device)


def evaluation_batch_size(device: str) -> int:
    """Images attacked at a time: fixed, since an attack's randomness goes batch by batch."""
    return 50 if device == "cpu" else 250


def measure_clean(model: nn.Module, batches: Batches, *, on_images: OnImages | None = None) -> Outcomes:
    """The clean measure: which images are right as they are."""
    return _measure(model, batches, None, [0.0], "linf", 0, on_images)[0]


def measure_attack(
    model: nn.Module,
    batches: Batches,
    attack: Attack,
    eps: Sequence[float],
    *,
    norm: str = "linf",
    seed: int = 0,
    on_images: OnImages | None = None,
) -> list[Outcomes]:
    """One measure a budget, every step on every image (full budget).

    What goes wrong inside the model or the attack becomes the measures' status: a failed measure
    counts neither as robust nor as zero.

    Args:
        model: float32 pixels in [0, 1] to logits, on the device of the batches.
        batches: the images.
        attack: what moves them.
        eps: positive budgets in units of the pixel range.
        norm: ``linf`` or ``l2``.
        seed: of the attack; batch by batch, so that an image meets the same randomness at each eps.
        on_images: called with the number of images done after each batch.
    """
    return _measure(model, batches, attack, eps, norm, seed, on_images)


def _measure(
    model: nn.Module,
    batches: Batches,
    attack: Attack | None,
    eps: Sequence[float],
    norm: str,
    seed: int,
    on_images: OnImages | None,
) -> list[Outcomes]:
    started = time.perf_counter()
    top1: list[list[Tensor]] = [[] for _ in eps]
    top5: list[list[Tensor]] = [[] for _ in eps]
    status = OK
    oracle = Oracle(model)
    try:
        with oracle:
            for start in batches.starts():
                images, labels = batches.at(start)
                versions: Sequence[Tensor] = [images]
                if attack is not None:
                    batch_seed = seed * 1_000_003 + start
                    versions = list(attack.perturb(oracle, images, labels, eps, norm=norm, seed=batch_seed))
                for index, version in enumerate(versions):
                    logits = oracle.logits(version)
                    top1[index].append(in_top(logits, labels, 1))
                    top5[index].append(in_top(logits, labels, 5))
                if on_images is not None:
                    on_images(len(labels))
    except Exception as error:  # noqa: BLE001 - whatever a model or a plugged-in attack raises
        status = f"failed: {error if isinstance(error, AttackFailure) else one_line(error)}"
    share = (time.perf_counter() - started) / len(eps)
    return [
        Outcomes(
            eps=value,
            top1=torch.cat(top1[index]).cpu().numpy() if status == OK else None,
            top5=torch.cat(top5[index]).cpu().numpy() if status == OK else None,
            status=status,
            seconds=share,
            forward_passes=oracle.forward_passes // len(eps),
            backward_passes=oracle.backward_passes // len(eps),
        )
        for index, value in enumerate(eps)
    ]
