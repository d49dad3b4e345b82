"""Comparison of variants with their model at given images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from robustbench_tin.attacks.acceleration.agreement import distance
from robustbench_tin.attacks.acceleration.variants import ModelVariant
from robustbench_tin.attacks.engine.model_passes import ModelPasses
from robustbench_tin.attacks.engine.rng import own_randomness, seed_randomness
from robustbench_tin.attacks.engine.state import ModelOutput


def count_differing(
    variants: Iterable[ModelVariant],
    model: ModelVariant,
    images: Tensor,
    logits: Tensor | None,
    passes: ModelPasses,
) -> list[tuple[ModelVariant, int]]:
    """For each variant, the number of images whose logits differ from the model's by more than rounding.

    Random states are left as they were, and a random model draws the same numbers for all. This waits for the
    device.

    Args:
        variants: the variants.
        model: their model.
        images: float32 ``(N, C, H, W)``.
        logits: the model's logits of the first images, ``(n, C)``, computed in any batch; None: of none.
        passes: makes the passes, uncounted.
    """
    known = 0 if logits is None else len(logits)
    found = []
    with own_randomness(images.device):
        others = [_logits(model, images[known:], passes)] if known < len(images) else []
        ours = others[0] if logits is None or not known else torch.cat([logits, *others])
        for variant in variants:
            theirs = _logits(variant, images, passes)
            differing = _differing(variant, theirs, ours)
            if differing and known:
                # Known logits may depend on the rest of their batch, or on other draws.
                differing = _differing(variant, theirs, _logits(model, images, passes))
            found.append((variant, differing))
    return found


def _differing(variant: ModelVariant, theirs: Tensor, ours: Tensor) -> int:
    return int((distance(theirs, ours) > variant.limit).sum())


def _logits(variant: ModelVariant, images: Tensor, passes: ModelPasses) -> Tensor:
    """A variant's logits, with the same draws each time; they may be infinite or NaN."""
    seed_randomness(images.device, "agreement")

    def part(rows: slice) -> ModelOutput:
        with variant.arithmetic(), torch.inference_mode(False), torch.no_grad():
            logits = passes.raw_output(variant, images[rows])
        assert isinstance(logits, Tensor)
        return ModelOutput(logits.float().clone())

    return passes.split.run(len(images), part).logits
