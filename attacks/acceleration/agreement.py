"""Whether a variant of a model is the model: how far answers and gradients may differ by rounding alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustbench_tin.attacks.engine.rng import seed_randomness

if TYPE_CHECKING:
    from robustbench_tin.attacks.acceleration.variants import ModelVariant

FLOAT32_LIMIT = 1e-3
"""How far an answer in float32 may lie from the model's, as :func:`distance` has it.

Ten folded networks, three of them trained, on 200 images each, clean and attacked: at most 8e-6 away.
"""

# The same of lower precisions, unless the median answer lies further than a sixth of it. On the same images a
# network's furthest answer in bfloat16 was at most 4 times as far as its median, which was 0.005 to 0.08; of
# points at a decision boundary one in a hundred lay further than 5 times. Trained on the images that they are
# asked about, networks stay below 0.02.
# TF32 keeps as many bits of a number as float16.
_LOW_LIMIT = {"bfloat16": 0.05, "float16": 0.01, "tf32": 0.01}
_TIMES_MEDIAN = 6
# Part of the answers in a lower precision that may lie beyond the limit, and one in any case.
_BEYOND = 0.03
# Rounding beside logits that are large, but nearly the same for all classes.
_ROUNDING = 1e-5
# Agreement of a variant as a whole: how alike gradients point in the median, how often answers differ (once
# in any case), and how far the median logit may lie apart, in units of all logits' spread.
_LEAST_COSINE = {"float32": 0.999, "bfloat16": 0.9, "float16": 0.9, "tf32": 0.9}
_MOST_OTHER_ANSWERS = 0.05
_MOST_APART = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05, "tf32": 0.05}


def is_wrong(precision: str, apart: int, compared: int) -> bool:
    """Whether a variant is another function than its model.

    Args:
        precision: of the variant.
        apart: how many of its answers lay beyond the limit.
        compared: of how many.
    """
    return apart > (0 if precision == "float32" else max(1, _BEYOND * compared))


def distance(theirs: Tensor, ours: Tensor) -> Tensor:
    """How far answers lie from the model's, image by image.

    Args:
        theirs: logits of a variant, float32 ``(N, C)``.
        ours: of the model.

    Returns:
        Root mean square difference of an image's logits, in units of their standard deviation or of half that
        of all logits, whichever is larger; infinite if it is no number. Float32 ``(N,)``.
    """
    apart = (theirs - ours).square().mean(dim=1).sqrt()
    spread = torch.maximum(ours.std(dim=1, correction=0), ours.std(correction=0) / 2)
    rounding = _ROUNDING * ours.abs().amax(dim=1) / FLOAT32_LIMIT
    parts = apart / torch.maximum(spread, rounding).clamp(min=1e-12)
    return parts.masked_fill(parts.isnan(), torch.inf)


@dataclass(frozen=True)
class SampleOutput:
    """What a variant said of some images.

    Attributes:
        precision: of the variant.
        logits: float32 ``(N, C)``.
        gradient: of the first images, that of the largest logit less the mean, ``(n, ...)``.
        seconds: for a forward and a backward pass of these.
    """

    precision: str
    logits: Tensor
    gradient: Tensor
    seconds: float


def sample_output(variant: ModelVariant, images: Tensor, graded: int) -> SampleOutput | None:
    """Ask a variant, None where it fails; uses up torch's random state.

    Args:
        variant: what is asked.
        images: float32 ``(N, C, H, W)``.
        graded: number of the first images whose gradient is taken, too.
    """
    # The same draws for every variant, where the model is random at test time.
    seed_randomness(images.device, "agreement")
    try:
        _wait(images.device)
        started = time.perf_counter()
        with variant.arithmetic(), torch.inference_mode(False), torch.enable_grad():
            variable = images[:graded].clone().requires_grad_()
            logits = _logits(variant, variable)
            (gradient,) = torch.autograd.grad((logits.amax(dim=1) - logits.mean(dim=1)).sum(), variable)
        _wait(images.device)
        seconds = time.perf_counter() - started
        parts = [logits.detach()]
        if len(images) > graded:
            with variant.arithmetic(), torch.inference_mode(False), torch.no_grad():
                parts.append(_logits(variant, images[graded:]))
        return SampleOutput(variant.precision, torch.cat(parts), gradient, seconds)
    except Exception:  # noqa: BLE001 - an operation that this precision lacks, a model without gradients
        return None


def limit_of(theirs: SampleOutput | None, ours: SampleOutput | None) -> float | None:
    """How far this variant's answers may lie from the model's later on; None: it does not agree with the
    model.

    It agrees if its gradients and answers are the model's as a whole, and no image's answer lies further away
    than rounding explains (in a lower precision hardly any): a variant that is wrong on some of the images is
    wrong. A single gradient says nothing: if two values are about to change places (in a ReLU, a pooling, the
    largest logit), it turns.

    Args:
        theirs: the variant's probe; None: it failed.
        ours: the model's on the same images; None likewise.
    """
    if theirs is None or ours is None:
        return None
    if not bool(torch.isfinite(theirs.logits).all() & torch.isfinite(theirs.gradient).all()):
        return None
    precision = theirs.precision
    distances = distance(theirs.logits, ours.logits)
    limit = FLOAT32_LIMIT
    if precision != "float32":
        limit = max(_LOW_LIMIT[precision], _TIMES_MEDIAN * float(distances.median()))
    others = (theirs.logits.argmax(dim=1) != ours.logits.argmax(dim=1)).sum()
    apart = (theirs.logits - ours.logits).abs().median() / (ours.logits.std() + 1e-12)
    cosine = _cosines(theirs.gradient, ours.gradient).median()
    agrees = not is_wrong(precision, int((distances > limit).sum()), len(distances)) and bool(
        (others <= max(1, _MOST_OTHER_ANSWERS * len(distances)))
        & (apart <= _MOST_APART[precision])
        & (cosine >= _LEAST_COSINE[precision])
    )
    return limit if agrees else None


def _cosines(theirs: Tensor, ours: Tensor) -> Tensor:
    """How alike gradients point, ``(n,)``; those of an image that has none on either side are alike."""
    theirs, ours = theirs.flatten(1).double(), ours.flatten(1).double()
    none = (theirs == 0).all(dim=1) & (ours == 0).all(dim=1)
    return torch.cosine_similarity(theirs, ours, dim=1, eps=1e-30).masked_fill(none, 1.0)


def _logits(variant: ModelVariant, images: Tensor) -> Tensor:
    logits = variant.logits(images)
    assert isinstance(logits, Tensor)
    return logits.float()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
