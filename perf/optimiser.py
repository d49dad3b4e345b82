"""An optimiser's step in the training loop ÷ torch's fused one, on kernels in the layout of channels last.

``python perf/optimiser.py`` times the seven backbones on one thread, in turn: processor time, median of the
rounds and their range. ``--models`` and ``--optimizer`` choose others.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from robustbench_tin.models import backbones, build_classifier, select
from robustbench_tin.training.optimiser import build_optimizer
from robustbench_tin.training.recipe import Recipe

FUSED = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


def main() -> None:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="all")
    parser.add_argument("--optimizer", default="adamw", choices=FUSED)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | parameters | torch's step, s | ratio |\n| --- | ---: | ---: | ---: |")
    for name in select(options.models):
        built = build_classifier(backbones.get(name), 10, image_size=64, seed=0)
        network = built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        print(f"| {name} | {row(network, options.optimizer, options.rounds)} |", flush=True)


def row(network: nn.Module, kind: str, rounds: int) -> str:
    """Parameters, seconds and quotients of one network."""
    parameters = list(network.parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    recipe = Recipe(1, 24, 1e-6, optimizer=kind)
    steps = (build_optimizer(network, recipe, recipe.stages[0]), FUSED[kind](parameters, lr=1e-6, fused=True))
    seconds: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        ours, theirs = (timed(optimizer) for optimizer in steps)
        seconds.append((ours, theirs))
    quotients = [ours / theirs for ours, theirs in seconds[1:]]  # the first makes the state
    whole = statistics.median(theirs for _, theirs in seconds[1:])
    spread = f"{statistics.median(quotients):.2f} ({min(quotients):.2f} to {max(quotients):.2f})"
    return f"{sum(each.numel() for each in parameters) / 1e6:.1f} M | {whole:.3f} | {spread}"


def timed(optimizer: torch.optim.Optimizer) -> float:
    """Seconds of processor time of a step."""
    started = time.process_time()
    optimizer.step()
    return time.process_time() - started


if __name__ == "__main__":
    main()
