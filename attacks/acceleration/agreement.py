"""Agreement of a variant with its model: how far logits and gradients may differ by rounding alone."""

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
"""Largest :func:`distance` of logits in float32 from the model's.

Ten networks with batch norm fused, three of them trained, on 200 images each, clean and attacked: at most
8e-6.
"""

# The same for lower precisions, or six times the median distance if that is larger. On the same images, a
# network's largest distance in bfloat16 was at most 4 times its median, which was 0.005 to 0.08; of points at
# a decision boundary, one in a hundred was above 5 times. On their own training images, networks stay below
# 0.02. TF32 keeps as many bits of a number as float16.
_LOW_LIMIT = {"bfloat16": 0.05, "float16": 0.01, "tf32": 0.01}
_TIMES_MEDIAN = 6
# Part of the logits in a lower precision that may lie beyond the limit; one image may in any case.
_BEYOND = 0.03
# Rounding beside logits that are large, but nearly the same for all classes.
_ROUNDING = 1e-5
# Agreement of a variant as a whole: smallest median cosine of gradients, largest part of images with another
# top-1 (one image may in any case), and largest median difference of a logit in units of all logits' spread.
_LEAST_COSINE = {"float32": 0.999, "bfloat16": 0.9, "float16": 0.9, "tf32": 0.9}
_MOST_OTHER_ANSWERS = 0.05
_MOST_APART = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05, "tf32": 0.05}


def is_wrong(precision: str, apart: int, compared: int) -> bool:
    """True if a variant is another function than its model.

    Args:
        precision: the precision of the variant.
        apart: number of points whose logits lie beyond the limit.
        compared: number of points compared.
    """
    return apart > (0 if precision == "float32" else max(1, _BEYOND * compared))


def distance(theirs: Tensor, ours: Tensor) -> Tensor:
    """The distance of a variant's logits from the model's, for each image.

    Args:
        theirs: logits of the variant, float32 ``(N, C)``.
        ours: logits of the model, float32 ``(N, C)``.

    Returns:
        Root mean square difference of an image's logits, in units of their standard deviation or of half that
        of all logits, whichever is larger; infinite if it is NaN. Float32 ``(N,)``.
    """
    apart = (theirs - ours).square().mean(dim=1).sqrt()
    spread = torch.maximum(ours.std(dim=1, correction=0), ours.std(correction=0) / 2)
    rounding = _ROUNDING * ours.abs().amax(dim=1) / FLOAT32_LIMIT
    parts = apart / torch.maximum(spread, rounding).clamp(min=1e-12)
    return parts.masked_fill(parts.isnan(), torch.inf)


@dataclass(frozen=True)
class SampleOutput:
    """Logits and gradients of a variant on some images.

    Attributes:
        precision: the precision of the variant.
        logits: float32 ``(N, C)``.
        gradient: for the first images, the gradient of the largest logit minus the mean, ``(n, C, H, W)``.
        seconds: time of a forward and a backward pass with these first images.
    """

    precision: str
    logits: Tensor
    gradient: Tensor
    seconds: float


def sample_output(variant: ModelVariant, images: Tensor, graded: int) -> SampleOutput | None:
    """Logits and gradients of a variant; None if it fails. This changes torch's random state.

    Args:
        variant: the variant.
        images: float32 ``(N, C, H, W)``.
        graded: number of the first images whose gradients are computed too.
    """
    # The same draws for every variant of a model that is random at test time.
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
    """The limit for later distances of a variant's logits; None if it does not agree with the model.

    It agrees if its gradients and logits are the model's as a whole, and no image's logits differ by more
    than rounding explains (in a lower precision, few images). A variant that is wrong on some images is
    wrong. A single gradient proves nothing: it changes direction if two values are nearly equal (in a ReLU, a
    pooling, the largest logit).

    Args:
        theirs: the variant's output; None if it failed.
        ours: the model's output on the same images; None if it failed.
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
    """Cosines of gradients, ``(n,)``; 1 for an image whose gradients are both zero."""
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
