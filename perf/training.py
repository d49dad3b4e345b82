"""Training beside the limit: the same passes on a batch that lies on the device already.

``python perf/training.py`` times, for a resnet18 and a mobilenet on random images of 64 px:

- standard training: the loop with ``none``;
- FGSM training: the loop with ``fgsm-at``;
- PGD-10 training: the loop with ``pgd-at:steps=10``;

each beside its limit: on one fixed float32 batch on the device, the passes that the method needs (1 forward
and backward; 1 for the images and 1 for the weights; 10 and 1), gradient clipping and the optimiser's fused
step, and nothing else: no data set, no order, no ball, no schedule, no monitor. Both in the precision and the
layout that training chooses. ``--augment`` adds ``augment`` to the loop's side, to show its cost.

Each method and its limit run in turn, ``--rounds`` times; the table shows the medians of images a second and
of the ratio within a round, with its range. The first round is a warm-up and does not count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense
from robustbench_tin.models import backbones, build_classifier
from robustbench_tin.runtime import Runtime, choose_device, choose_precision, tune_allocator
from robustbench_tin.training.compiling import compiled
from robustbench_tin.training.loop import Recipe, train

METHODS = {"standard": ("none", 0), "FGSM": ("fgsm-at", 1), "PGD-10": ("pgd-at:steps=10", 10)}
CLASSES = 200
SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="timm:resnet18,mobilenet")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--device", help="the best there is")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="optimiser steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--augment", action="store_true", help="flips, turns, zooms and shifts in the loop")
    parser.add_argument("--compile", action="store_true", help="the network, on both sides")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    tune_allocator()
    device = choose_device(arguments.device)
    print(
        f"{device}, {torch.get_num_threads()} threads, batches of {arguments.batch_size}, {arguments.steps}"
        f" steps a round, {arguments.rounds} rounds"
    )
    print("| model | precision | training | images/s | limit, images/s | ratio | range |")
    print("|---|---|---|---:|---:|---:|---|")
    for model in arguments.models.split(","):
        for method in arguments.methods.split(","):
            tell(measured(model, method, device, arguments))


@dataclass(frozen=True)
class Row:
    """Images a second of the loop and of the passes alone, and the ratio of both within a round."""

    model: str
    precision: str
    method: str
    rate: float
    limit: float
    ratio: float
    low: float
    high: float


def tell(row: Row) -> None:
    print(
        f"| {row.model} | {row.precision} | {row.method} | {row.rate:,.0f} | {row.limit:,.0f}"
        f" | {row.ratio:.3f} | {row.low:.3f} to {row.high:.3f} |",
        flush=True,
    )


def measured(model: str, method: str, device: str, arguments: argparse.Namespace) -> Row:
    spec, image_passes = METHODS[method]
    if arguments.augment:
        spec = "augment" if spec == "none" else f"augment+{spec}"
    classifier = build_classifier(backbones.get(model), CLASSES, image_size=SIZE, resize_to=None, seed=0)
    runtime = Runtime(device, choose_precision(device, classifier, SIZE))
    images = arguments.batch_size * arguments.steps
    random = np.random.default_rng(0)
    split = Split(
        random.integers(0, 256, (images, 3, SIZE, SIZE), dtype=np.uint8), random.integers(0, CLASSES, images)
    )
    recipe = Recipe(epochs=1, batch_size=arguments.batch_size, lr=1e-3)

    def loop() -> None:
        train(classifier, split, parse_defense(spec), recipe, runtime, num_classes=CLASSES, seed=0)

    limit = limit_of(classifier, split, runtime, recipe, image_passes, arguments.steps)
    rates = []
    network = compiled(classifier, runtime, arguments.batch_size, print)
    with network if arguments.compile else nullcontext():
        for _ in range(arguments.rounds + 1):
            rates.append([images / seconds(action, device) for action in (loop, limit)])
    ours, bound = zip(*rates[1:], strict=True)
    ratios = [one / other for one, other in rates[1:]]
    compiling = ", compiled" if arguments.compile else ""
    return Row(
        model,
        f"{runtime.precision}{compiling}",
        method,
        statistics.median(ours),
        statistics.median(bound),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def limit_of(
    classifier: nn.Module, split: Split, runtime: Runtime, recipe: Recipe, image_passes: int, steps: int
) -> Callable[[], None]:
    """The passes alone, on the first batch."""
    runtime.place(classifier)
    device = runtime.torch_device
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    batch = torch.from_numpy(split.images[: recipe.batch_size]).to(device, torch.float32).div_(255)
    batch = batch.to(memory_format=layout)
    labels = torch.from_numpy(split.labels[: recipe.batch_size]).to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=recipe.lr, fused=True)

    def passes() -> None:
        classifier.train()
        for _ in range(steps):
            shown = batch
            for _ in range(image_passes):
                asked = shown.detach().requires_grad_()
                with runtime.autocast():
                    loss = functional.cross_entropy(classifier(asked), labels)
                (gradient,) = torch.autograd.grad(loss, asked)
                shown = asked.detach() + 0.0 * gradient
            optimizer.zero_grad(set_to_none=True)
            with runtime.autocast():
                loss = functional.cross_entropy(classifier(shown), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(classifier.parameters(), recipe.clip_norm)
            optimizer.step()

    return passes


def seconds(action: Callable[[], None], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    action()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
