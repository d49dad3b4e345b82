"""Selection of the variants that attacks search with: by label, or by timing."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.agreement import SampleOutput, limit_of, sample_output
from robustbench_tin.attacks.acceleration.variant_label import MODEL, Layout, Precision, VariantLabel
from robustbench_tin.attacks.acceleration.variants import ModelVariant, make_variant
from robustbench_tin.attacks.engine.rng import own_randomness
from robustbench_tin.strict_float32 import has_tf32

# Least number of images whose gradients are compared; half of the images if variants are timed.
_FEWEST_GRADED = 8
# Batch size for the choice of the variant that gives logits only.
_FORWARD_BATCH = 32
# Forward passes of each variant in that choice; other work on the machine may disturb a few of them.
_ROUNDS = 5
# A lower precision must take at most this part of the time to be worth its noise.
_WORTH = 0.85

# On a CPU, in batches of 50, channels-last was faster for a resnet18; each further layout costs passes.
_LAYOUTS: dict[str, Sequence[Layout]] = {"cpu": ("channels-last",)}
_BOTH_LAYOUTS: Sequence[Layout] = ("channels-last", "contiguous")


class SelectedVariants:
    """The variants selected for one search setting: one to search with, and a precise one in float32.

    A copy of the model is made at its first use.

    Args:
        model: the model itself.
        images: a few images similar to those under attack, float32 ``(N, C, H, W)``.
        labels: labels of the variant to search with and of the precise one; both agree with the model.
        live: one of them, already made.
        candidates: labels of variants; at its first use, the fastest of them in forward passes becomes the
            precise one. Empty: the precise one in ``labels``.

    Attributes:
        labels: the current labels of both.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: tuple[VariantLabel, VariantLabel],
        live: ModelVariant,
        candidates: Sequence[VariantLabel] = (),
    ) -> None:
        self.labels = labels
        self._model = model
        self._images = images.clone()
        self._live = {live.label: live}
        self._candidates = candidates or labels[1:]
        self._forward_only: ModelVariant | None = None

    def variant(self, *, precise: bool = False) -> ModelVariant:
        """The variant to search with, or the precise one."""
        label = self.labels[precise]
        if label not in self._live:
            with own_randomness(self._images.device):
                self._live[label] = self._make(label)
        return self._live[label]

    def forward_only(self) -> ModelVariant:
        """The precise variant for logits without gradients, of which black-box attacks need thousands."""
        if self._forward_only is None:
            batch = self._images.repeat(-(-_FORWARD_BATCH // len(self._images)), 1, 1, 1)[:_FORWARD_BATCH]
            with own_randomness(batch.device):
                variants = [self._live.get(label) or self._make(label) for label in self._candidates]
                self._forward_only = variants[0] if len(variants) == 1 else _fastest_forward(variants, batch)
            self.labels = (self.labels[0], self._forward_only.label)
        return self._forward_only

    def refute(self) -> None:
        """Use the model itself from now on, because one of the variants was wrong."""
        self.labels = (MODEL, MODEL)
        self._live = {MODEL: ModelVariant(self._model)}
        self._candidates = self.labels[1:]
        self._forward_only = None

    def _make(self, label: VariantLabel) -> ModelVariant:
        return make_variant(self._model, self._images, label) or ModelVariant(self._model)


def select_labelled(
    model: nn.Module, images: Tensor, labels: tuple[VariantLabel, VariantLabel]
) -> SelectedVariants:
    """The variants with these labels if they agree with the model, else the model itself.

    Args:
        model: frozen and in eval mode.
        images: a few images similar to those under attack, float32 ``(N, C, H, W)``.
        labels: labels of the variant to search with and of the precise one.
    """
    model_itself = ModelVariant(model)
    ours: SampleOutput | None = None
    agreeing = {MODEL: MODEL}
    live = model_itself
    search, precise = labels
    # The one to search with last, so that the other is freed before it is made.
    for label in dict.fromkeys((precise, search)):
        # A lower precision hides the faults of a wrong copy, so its float32 variant must agree first.
        if label == MODEL or agreeing.get(precise, precise) != precise:
            continue
        ours = ours or sample_output(model_itself, images, _FEWEST_GRADED)
        variant = _agreeing(make_variant(model, images, label), ours, images, _FEWEST_GRADED)
        live = variant if variant is not None and label == search else model_itself
        agreeing[label] = label if variant is not None else MODEL
        del variant
    return SelectedVariants(model, images, (agreeing.get(search, MODEL), agreeing[precise]), live)


def select_fastest(model: nn.Module, images: Tensor) -> SelectedVariants:
    """The fastest variant that agrees with the model, and the fastest of those in float32.

    Args:
        model: frozen and in eval mode.
        images: a few images similar to those under attack, float32 ``(N, C, H, W)``.
    """
    model_itself = ModelVariant(model)
    graded = max(_FEWEST_GRADED, len(images) // 2)
    ours = sample_output(model_itself, images, graded)
    if ours is None:
        return SelectedVariants(model, images, (MODEL, MODEL), model_itself)
    layouts = _LAYOUTS.get(images.device.type, _BOTH_LAYOUTS)
    precise, seconds, candidates = _fastest_float32(model_itself, ours, images, layouts, graded)
    fastest: _Timing | None = None
    for precision in _lower_precisions(images.device):
        for layout in layouts:
            # A lower precision hides the faults of a wrong copy, so its float32 variant must agree first.
            if VariantLabel("float32", layout, fused=True) not in candidates:
                continue
            made = make_variant(model, images, VariantLabel(precision, layout, fused=True))
            fastest = _faster(fastest, _agreeing(made, ours, images, graded), images[:graded])
    if fastest is None or fastest.seconds > _WORTH * seconds:
        return SelectedVariants(model, images, (precise, precise), model_itself, candidates)
    return SelectedVariants(model, images, (fastest.variant.label, precise), fastest.variant, candidates)


def _fastest_float32(
    model: ModelVariant, ours: SampleOutput, images: Tensor, layouts: Sequence[Layout], graded: int
) -> tuple[VariantLabel, float, Sequence[VariantLabel]]:
    """The fastest variant in float32: its label, its seconds, and the labels of all that agree.

    All variants are freed on return, so that they take no memory while others are tried.
    """
    best = _Timing(model, ours.seconds)
    agreeing = [MODEL]
    for layout in layouts:
        made = make_variant(model.module, images, VariantLabel("float32", layout, fused=True))
        variant = _agreeing(made, ours, images, graded)
        if variant is not None:
            agreeing.append(variant.label)
            best = _faster(best, variant, images[:graded]) or best
    return best.variant.label, best.seconds, agreeing if len(agreeing) > 1 else ()


@dataclass(frozen=True)
class _Timing:
    """A variant and its shortest time for a forward and a backward pass."""

    variant: ModelVariant
    seconds: float


def _faster(best: _Timing | None, variant: ModelVariant | None, images: Tensor) -> _Timing | None:
    """The faster of the best variant so far and another; at most two exist at a time."""
    if variant is None:
        return best
    # The comparison with the model has warmed the kernels up.
    challenger = _Timing(variant, _seconds(variant, images))
    if best is None:
        return challenger
    best = _Timing(best.variant, min(best.seconds, _seconds(best.variant, images)))
    return min(best, challenger, key=lambda timing: timing.seconds)


def _seconds(variant: ModelVariant, images: Tensor) -> float:
    """The time of a forward and a backward pass."""
    again = sample_output(variant, images, len(images))
    return math.inf if again is None else again.seconds


def _agreeing(
    variant: ModelVariant | None, ours: SampleOutput | None, images: Tensor, graded: int
) -> ModelVariant | None:
    """The variant with its limit on the distance of logits; None if it does not agree with the model."""
    limit = None if variant is None else limit_of(sample_output(variant, images, graded), ours)
    return None if variant is None or limit is None else replace(variant, limit=limit)


def _lower_precisions(device: torch.device) -> Sequence[Precision]:
    if device.type == "cuda":
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        supported: dict[Precision, bool] = {
            "tf32": has_tf32(device),
            "bfloat16": bfloat16,
            "float16": True,
        }
        return [precision for precision, there in supported.items() if there]
    native = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ["bfloat16"] if native else []


def _fastest_forward(variants: Sequence[ModelVariant], images: Tensor) -> ModelVariant:
    """The variant with the fastest forward pass; the variants take turns for several rounds."""
    least = [math.inf] * len(variants)
    with torch.no_grad():
        for _ in range(_ROUNDS):
            for number, variant in enumerate(variants):
                _wait(images.device)
                started = time.perf_counter()
                variant.logits(images)
                _wait(images.device)
                least[number] = min(least[number], time.perf_counter() - started)
    return variants[least.index(min(least))]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
