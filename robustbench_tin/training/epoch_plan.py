"""Which images each step sees: a function of the seed and the step alone, so that nothing needs resuming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_tin.training.recipe import Recipe
from robustbench_tin.training.stages import Stage


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set.

    Attributes:
        stage: which of the recipe's stages it belongs to, and that stage itself.
        clean: the plain loss is trained on, not the defense's.
        replays: times that each batch is trained on before the next.
        steps: optimiser steps in it.
        stage_step: those of its stage before it.
        stage_steps: those of its stage in all.
    """

    stage: tuple[int, Stage]
    clean: bool
    replays: int
    steps: int
    stage_step: int
    stage_steps: int


def epoch_plan(recipe: Recipe, replays: int, batches: int) -> tuple[Epoch, ...]:
    """The epochs in their order.

    A defense that replays each batch m times has one pass for every m epochs asked for: the cost is the same.

    Args:
        recipe: epochs, stages and clean epochs.
        replays: m; clean epochs replay nothing.
        batches: in one pass over the training set.
    """
    epochs: list[Epoch] = []
    clean_left = recipe.clean_epochs
    for number, stage in enumerate(recipe.stages):
        clean = min(stage.epochs, clean_left)
        clean_left -= clean
        acting = stage.epochs - clean
        times = [1] * clean + [replays] * (max(1, round(acting / replays)) if acting else 0)
        for index, each in enumerate(times):
            epochs.append(
                Epoch(
                    stage=(number, stage),
                    clean=index < clean,
                    replays=each,
                    steps=each * batches,
                    stage_step=batches * sum(times[:index]),
                    stage_steps=batches * sum(times),
                )
            )
    return tuple(epochs)


class EpochSampler:
    """The order of the images: each epoch a permutation of its own, cut into batches of equal size.

    Args:
        images: how many there are.
        batch_size: of a batch, or slightly more.
        seed: of the order.

    Attributes:
        batches: in an epoch.
    """

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self._images = images
        self._generator = torch.Generator().manual_seed(seed)
        self._permutations: list[Tensor] = []
        self.batches = max(1, images // batch_size)

    def of_epoch(self, epoch: int, device: torch.device) -> Sequence[Tensor]:
        """The rows of each batch of an epoch, int64."""
        while len(self._permutations) <= epoch:
            self._permutations.append(torch.randperm(self._images, generator=self._generator))
        return self._permutations[epoch].to(device, non_blocking=True).tensor_split(self.batches)
