"""The training loop: plain torch, readable from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_tin.data.base import Split
from robustbench_tin.runtime import Runtime, as_tensor
from robustbench_tin.training.context import Context, TrainingHooks, no_other

# Steps between looks at the loss: each look waits for the device.
LOSS_CHECK_INTERVAL = 20


class TrainingFailure(RuntimeError):  # noqa: N818 - a cell's "failed", in the project's words
    """Training cannot go on; the cell has failed, and nothing of it is measured."""


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained: AdamW on a one-cycle schedule (Smith and Topin, 2018, arXiv 1708.07120).

    Attributes:
        epochs: passes over the prepared training set.
        batch_size: images a step, or slightly more: an epoch is cut into steps of equal size.
        lr: the schedule's highest learning rate.
        weight_decay: AdamW's, on weights of two dimensions and more.
        warmup: part of the steps in which the rate rises.
        clip_norm: gradients longer than this are scaled back to it.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.05
    warmup: float = 0.25
    clip_norm: float = 1.0


@dataclass(frozen=True)
class TrainingRecord:
    """What a training left behind, for the run's records.

    Attributes:
        images: size of the prepared training set.
        steps: optimiser steps taken.
        seconds: wall-clock time, preparation included.
        loss: mean training loss of the last epoch.
        notes: lines that the defense had to say.
    """

    images: int
    steps: int
    seconds: float
    loss: float
    notes: tuple[str, ...]


def train(
    classifier: nn.Module,
    split: Split,
    defense: TrainingHooks,
    recipe: Recipe,
    runtime: Runtime,
    *,
    num_classes: int,
    seed: int,
    on_step: Callable[[int, int], None] | None = None,
    trained: Callable[[str], nn.Module] = no_other,
) -> TrainingRecord:
    """Train a classifier in place; the same arguments give the same weights on the same machine.

    Args:
        classifier: pixels in [0, 1] to logits.
        split: the training images, uint8.
        defense: its hooks change the training set, the batches or the loss.
        recipe: epochs, batch size, rate.
        runtime: device, precision, layout.
        num_classes: of the classifier.
        seed: of the order of the images, of the defense's randomness and of dropout.
        trained: gives the defense other trained classifiers by name.
        on_step: called with the steps taken and the steps in all.

    Raises:
        TrainingFailure: where the loss is no longer finite.
    """
    started = time.perf_counter()
    device = runtime.torch_device
    notes: list[str] = []
    context = Context(
        generator=torch.Generator(device).manual_seed(seed),
        device=device,
        num_classes=num_classes,
        epochs=recipe.epochs,
        note=notes.append,
        trained=trained,
    )
    prepared = defense.prepare(split, context)
    images = as_tensor(prepared.images).to(device)
    labels = as_tensor(prepared.labels).to(device)
    order = torch.Generator().manual_seed(seed)
    context.steps_per_epoch = max(1, len(images) // recipe.batch_size)
    total_steps = recipe.epochs * context.steps_per_epoch

    runtime.place(classifier).train()
    optimizer = torch.optim.AdamW(
        _parameter_groups(classifier, recipe.weight_decay), lr=recipe.lr, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _one_cycle(step, total_steps, recipe.warmup)
    )

    loss_sum = torch.zeros((), device=device)
    forked = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=forked):
        torch.manual_seed(seed)
        for epoch in range(recipe.epochs):
            loss_sum.zero_()
            permutation = torch.randperm(len(images), generator=order).to(device)
            for rows in permutation.tensor_split(context.steps_per_epoch):
                batch = to_float(images[rows], runtime)
                batch, batch_labels = defense.augment(batch, labels[rows], context)
                with runtime.autocast():
                    loss = defense.loss(classifier, batch, batch_labels, context)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(classifier.parameters(), recipe.clip_norm)
                optimizer.step()
                schedule.step()
                loss_sum += loss.detach()
                context.step += 1
                if context.step % LOSS_CHECK_INTERVAL == 0 or context.step == total_steps:
                    _require_finite(loss_sum, context.step, epoch)
                if on_step is not None:
                    on_step(context.step, total_steps)
    classifier.eval()
    return TrainingRecord(
        images=len(images),
        steps=total_steps,
        seconds=time.perf_counter() - started,
        loss=loss_sum.item() / context.steps_per_epoch,
        notes=tuple(notes),
    )


def to_float(images: Tensor, runtime: Runtime) -> Tensor:
    """uint8 images as float32 in [0, 1], in the runtime's layout."""
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    return images.to(torch.float32, memory_format=layout).div_(255)


def _one_cycle(step: int, steps: int, warmup: float) -> float:
    """The rate's factor: a straight rise, then a cosine fall to zero."""
    rise = max(1.0, warmup * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels, none for biases and normalisation."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _require_finite(loss_sum: Tensor, step: int, epoch: int) -> None:
    if not math.isfinite(loss_sum.item()):
        raise TrainingFailure(
            f"the training loss was no longer finite at step {step} (epoch {epoch + 1}); try a lower --lr"
        )
