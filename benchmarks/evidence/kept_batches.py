"""The adversarial images that a run keeps, checked to give their stored predictions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack, AttackedModel
from robustbench_tin.attacks.engine.quantize import to_8bit
from robustbench_tin.benchmarks.evidence.opened_run import OpenedRun
from robustbench_tin.benchmarks.evidence.remade_batch import RemadeBatch, levels
from robustbench_tin.benchmarks.measurement.clean import lone_logits
from robustbench_tin.benchmarks.measurement.first_successes import repeats
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.adversarial_images import AdversarialImages
from robustbench_tin.threat import ThreatModel


def kept_batches(
    opened: OpenedRun,
    cell: Cell,
    attack: Attack,
    eps: float,
    attacked: AttackedModel,
    kept: AdversarialImages,
) -> dict[int, RemadeBatch]:
    """The kept images that still agree with the run's records, each as a batch alone, by its number.

    Such an image lies in the ball around the clean image. The model is right before and predicts the stored
    class after the attack.

    Args:
        opened: the run.
        cell: one of its cells.
        attack: one of its attacks.
        eps: one of its budgets, above 0.
        attacked: the attacked model, entered.
        kept: the images of this measurement.
    """
    results = opened.run.outcomes(cell, attack.spec, eps)
    classes = results["predicted"].tolist() if "predicted" in results else [None] * len(results)
    threat = ThreatModel(opened.plan.norm, eps)
    found = {}
    for row, pixels, draw in zip(kept.rows.tolist(), kept.images, kept.draws.tolist(), strict=True):
        adversarial = torch.from_numpy(pixels)
        inside = threat.ball(_clean(opened, row)).contains(adversarial[None].to(opened.batches.device))
        if bool(inside) and repeats(
            attacked,
            opened.batches,
            row,
            adversarial,
            draw,
            k=attack.goal.k,
            seed=cell.seed,
            predicted=classes[row],
        ):
            found[row] = _batch(opened, cell, threat, attacked, row, adversarial, draw)
    return found


def _batch(
    opened: OpenedRun,
    cell: Cell,
    threat: ThreatModel,
    attacked: AttackedModel,
    row: int,
    adversarial: Tensor,
    draw: int,
) -> RemadeBatch:
    images = _clean(opened, row)
    rounded = to_8bit(adversarial[None].to(images.device), threat.ball(images))
    clean_logits, logits = (
        lone_logits(attacked, each[0], cell.seed, row, draw)[None].cpu() for each in (images, rounded)
    )
    return RemadeBatch(levels(images), levels(rounded), clean_logits, logits, np.ones(1, dtype=np.bool_))


def _clean(opened: OpenedRun, row: int) -> Tensor:
    """One clean image, float32 ``(1, 3, H, W)`` on the device."""
    return opened.batches.rows(torch.tensor([row]))[0]
