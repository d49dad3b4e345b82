"""Adversarial images in 8 bits, for files and training sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.variant_cache import probed
from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.attacks.engine.image_batches import ImageBatches, batch_seed, drawn
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.attacks.engine.quantize import to_8bit
from robustbench_tin.attacks.engine.spot_checks import SpotChecks, with_right_variant
from robustbench_tin.threat import ThreatModel


@dataclass(frozen=True)
class AdversarialBatch:
    """A batch of adversarial images.

    Attributes:
        start: row of the first of them in the set.
        images: uint8 ``(n, 3, H, W)``, inside the ball around the originals.
        answers: the model's top-1 classes of them, int64 ``(n,)``.
    """

    start: int
    images: npt.NDArray[np.uint8]
    answers: npt.NDArray[np.int64]


def adversarial_batches(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    threat: ThreatModel,
    *,
    seed: int = 0,
    starts: Iterable[int] | None = None,
) -> Iterator[AdversarialBatch]:
    """Make adversarial images of a set, a batch at a time, with the ``fixed`` variant of the model.

    A batch depends on its first row and the seed alone, so the work may stop and continue at any of them.
    If the variant turns out to be wrong, this batch and those after it are made with the model itself.

    Args:
        model: float32 pixels in [0, 1] to logits, on the device of the images.
        batches: uint8 images with their true labels.
        attack: the attack.
        threat: norm and eps.
        seed: seed of the attack's randomness.
        starts: first rows of the batches to make, of ``batches.starts()``; None: all.

    Raises:
        AttackFailure: if the model or the attack goes wrong.
    """
    with AttackedModel(model, seed=seed) as attacked:
        # On images of the whole set, wherever the work continues: the variant must not depend on a stop.
        attacked.prepare(drawn(batches, threat, probed(len(batches))), "fixed")
        checks = SpotChecks(attacked)
        for start in batches.starts() if starts is None else starts:
            yield with_right_variant(
                attacked, partial(_fooled, attacked, checks, batches, attack, threat, seed, start)
            )


def _fooled(
    attacked: AttackedModel,
    checks: SpotChecks,
    batches: ImageBatches,
    attack: Attack,
    threat: ThreatModel,
    seed: int,
    start: int,
) -> AdversarialBatch:
    images, labels = batches.at(start)
    moved = perturb_images(
        attack, attacked, images, labels, [threat.eps], norm=threat.norm, seed=batch_seed(seed, start)
    )[0]
    rounded = to_8bit(moved, threat.ball(images))
    attacked.reseed("verdict", batch_seed(seed, start))
    logits = attacked.logits(rounded)
    checks.offer(rounded, logits)
    checks.look()
    return AdversarialBatch(start, _bytes(rounded), logits.argmax(dim=1).cpu().numpy())


def _bytes(images: Tensor) -> npt.NDArray[np.uint8]:
    """Multiples of 1/255 as uint8, ``(n, 3, H, W)`` contiguous."""
    levels: npt.NDArray[np.uint8] = (images * 255).round().byte().cpu().contiguous().numpy()
    return levels
