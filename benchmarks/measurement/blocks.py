"""Blocks: groups of images that are attacked independently, so that machines can share a measurement.

Within a block, an attack that stops on success draws its random numbers from one generator, and a free row
of the batch goes to the next image. So the result of an image depends only on the images of its block. A
measurement takes one block after the other, on one machine or on several, with the same results.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.rng import seed_of
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopResult, StageReport

BLOCK = 1000
"""Number of images in a block: a multiple of each batch size, and large enough to keep batches full."""


def blocks(attack: Attack, images: int) -> list[range]:
    """The blocks of a measurement, in order.

    Args:
        attack: the attack; if its later stages depend on the successes of all images, there is one block.
        images: number of images.
    """
    if type(attack).next_stage is not Attack.next_stage:
        return [range(images)]
    return image_blocks(images)


def image_blocks(images: int) -> list[range]:
    """The blocks for a fixed budget, whose random numbers depend on the batch only, in order.

    Args:
        images: number of images.
    """
    return [range(first, min(first + BLOCK, images)) for first in range(0, images, BLOCK)]


def block_seed(seed: int, first: int) -> int:
    """The seed of a block; for the first block it is the measurement's seed.

    Args:
        seed: seed of the measurement.
        first: row of the block's first image.
    """
    return seed if first == 0 else seed_of("block", seed, first)


def joined(results: Sequence[EarlyStopResult]) -> EarlyStopResult:
    """Join the results of all blocks.

    Args:
        results: the results of the blocks, in order; at least one.
    """
    if len(results) == 1:
        return results[0]
    images = [each.images for each in results if each.images is not None]
    return EarlyStopResult(
        torch.cat([each.success for each in results]),
        torch.cat(images) if images else None,
        torch.cat([each.predicted for each in results]),
        sum(each.disagreements for each in results),
        torch.cat([each.unverified for each in results]),
        joined_stages([each.stages for each in results]),
    )


def joined_stages(reports: Sequence[Sequence[StageReport]]) -> list[StageReport]:
    """Add up the stage reports of all blocks; a block without survivors has fewer stages than others.

    Args:
        reports: the stage reports of each block.
    """
    return [
        StageReport(
            stages[0].attack,
            sum(stage.entered for stage in stages),
            sum(stage.successes for stage in stages),
            sum(stage.late_successes for stage in stages),
        )
        for together in zip_longest(*reports)
        if (stages := [stage for stage in together if stage is not None])
    ]
