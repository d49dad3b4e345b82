"""The clean measurement, and the clean logits that other measurements use."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.base import AttackedModel, AttackFailure
from robustbench_tin.attacks.engine.image_batches import ImageBatches, batch_seed
from robustbench_tin.attacks.engine.spot_checks import OnImages
from robustbench_tin.benchmarks.codes.status import OK, Status, StatusCode
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.errors import FOREIGN, one_line
from robustbench_tin.metrics import in_top, predictions


def measure_clean(
    model: nn.Module, batches: ImageBatches, *, seed: int = 0, on_images: OnImages | None = None
) -> tuple[Measurement, Tensor | None]:
    """Measure clean accuracy.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: the images.
        seed: random seed, for a model that is random at test time.
        on_images: called after each batch with its number of images.

    Returns:
        The measurement, and the logits, float32 ``(N, C)`` on the images' device; None instead of the logits
        if the measurement failed.
    """
    started = time.perf_counter()
    attacked = AttackedModel(model)
    status, logits = OK, None
    try:
        with attacked:
            parts = []
            for start in batches.starts():
                images, labels = batches.at(start)
                parts.append(batch_logits(attacked, images, seed, start))
                if on_images is not None:
                    on_images(len(labels))
            logits = torch.cat(parts)
    except FOREIGN as error:  # a model may raise anything
        status = failed(error)
    labels = batches.all_labels()
    return Measurement(
        eps=0.0,
        top1=None if logits is None else hits_of(logits, labels, 1),
        top5=None if logits is None else hits_of(logits, labels, 5),
        status=status,
        seconds=time.perf_counter() - started,
        forward_passes=attacked.forward_passes,
        backward_passes=0,
        predicted=None if logits is None else predictions(logits).cpu().numpy(),
    ), logits


def batch_logits(attacked: AttackedModel, images: Tensor, seed: int, start: int) -> Tensor:
    """The logits that decide the results of one batch, float32 ``(N, C)``.

    If the model is random at test time, a batch gets the same random numbers each time, clean or attacked,
    at any eps. So accuracies differ only because of the attack. Attacks do not see these random numbers.

    Args:
        attacked: the attacked model.
        images: the batch, float32 ``(N, C, H, W)`` in [0, 1].
        seed: seed of the measurement.
        start: row of the batch's first image.
    """
    attacked.reseed("verdict", batch_seed(seed, start))
    return attacked.logits(images)


def lone_logits(attacked: AttackedModel, image: Tensor, seed: int, row: int, draw: int = 0) -> Tensor:
    """The verdict on one image alone, float32 ``(C,)``.

    Args:
        attacked: the attacked model, entered.
        image: float32 ``(C, H, W)``.
        seed: of the measurement.
        row: number of the image.
        draw: number of the draw of a model that is random at test time; each draw is the same at each call.
    """
    attacked.reseed("verdict", batch_seed(seed, row), *([draw] if draw else []))
    return attacked.logits(image[None])[0]


def hits_of(logits: Tensor, labels: Tensor, k: int) -> npt.NDArray[np.bool_]:
    """Whether each image's label is in the top ``k``, bool ``(N,)``.

    Args:
        logits: ``(N, C)``.
        labels: int64 ``(N,)``.
        k: 1 or more.
    """
    hits: npt.NDArray[np.bool_] = in_top(logits, labels, k).cpu().numpy()
    return hits


def failed(error: BaseException) -> Status:
    """The status of a measurement that failed with an error."""
    why = str(error) if isinstance(error, AttackFailure) else one_line(error)
    return Status.of(StatusCode.failed, why=why)
