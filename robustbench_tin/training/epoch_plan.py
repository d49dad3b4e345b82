"""The images of each step, a function of only the seed and the step, so that resuming needs no state."""

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
        stage: number of its stage in the recipe, and the stage.
        clean: True if it trains on the plain loss, not on the defense's.
        replays: number of times that each batch is trained on before the next.
        steps: number of optimiser steps.
        stage_step: number of the stage's steps before this epoch.
        stage_steps: number of the stage's steps in all.
    """

    stage: tuple[int, Stage]
    clean: bool
    replays: int
    steps: int
    stage_step: int
    stage_steps: int


def epoch_plan(recipe: Recipe, replays: int, batches: int) -> tuple[Epoch, ...]:
    """The epochs in order.

    A defense that replays each batch m times makes one pass per m epochs of the recipe: the cost is the same.

    Args:
        recipe: epochs, stages and clean epochs.
        replays: m; clean epochs replay nothing.
        batches: number of batches in one pass over the training set.
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
    """The order of the images: a new permutation for each epoch, cut into batches of equal size.

    Args:
        images: number of images.
        batch_size: number of images in a batch; a batch may have slightly more.
        seed: seed of the order.

    Attributes:
        batches: number of batches in an epoch.
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
