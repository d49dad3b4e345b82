"""Variants of a model to search with: other memory layouts and precisions, batch norm folded.

A search needs gradients and comparisons, not the last bit; what it finds is verified with the model
itself in float32 before it counts. So the cheapest variant that agrees with the model will do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.agreement import (
    FLOAT32_LIMIT,
    SampleOutput,
    limit_of,
    sample_output,
)
from robustbench_tin.attacks.acceleration.fuse_batchnorm import folded
from robustbench_tin.attacks.acceleration.prepacked_weights import pack
from robustbench_tin.attacks.acceleration.small_map_conv import with_tiny_maps_multiplied
from robustbench_tin.attacks.acceleration.strided_conv_gradient import with_quick_stems
from robustbench_tin.attacks.engine.calling import asked
from robustbench_tin.attacks.engine.rng import own_randomness
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.modes import to_eval_mode
from robustbench_tin.strict_float32 import has_tf32, tf32

# A choice may see this part of the images to be attacked, within these bounds; gradients are taken of half of
# them if variants are timed, else of the fewest that tell whether they agree.
_PROBED_PART = 1 / 16
_FEWEST_PROBED, _MOST_PROBED = 32, 48
_FEWEST_GRADED = 8
# Images a batch by which the variant for answers alone is chosen.
_ANSWERED = 32
# Forward passes that the precise variant is chosen by; other work on the machine may disturb a few of them.
_ROUNDS = 5
# A lower precision has to save this much to be worth its noise.
_WORTH = 0.85

SEARCHES = ("auto", "fixed", "fastest", "exact")
"""Ways of searching, each with a variant if it agrees with the model, else with the model itself.

``exact``: the model itself; ``fixed``: batch norm folded, channels last, in TF32 if the GPU has it, else in
float32; ``fastest``: the fastest variant there is, by timing; ``auto`` leaves the choice to the caller, and
is ``fastest`` here.
"""

# On a CPU, in batches of 50, channels-last was the faster one of a resnet18; each more costs a choice passes.
_LAYOUTS = {"cpu": ("channels-last",)}
_BOTH_LAYOUTS = ("channels-last", "contiguous")
_PLAIN = "float32"
# Of what is written down, the labels of variants that were found to be wrong.
_REFUTED = "refuted"
_FIXED: dict[str, Sequence[str]] = {"exact": [_PLAIN] * 2, "fixed": ["float32, channels-last, folded"] * 2}
_FIXED_ON_GPU = ["tf32, channels-last, folded", "float32, channels-last, folded"]
# Computed in float32 tensors without autocast.
_FLOAT32_KINDS = ("float32", "tf32")


@dataclass(frozen=True)
class ModelVariant:
    """A model made ready to be searched with.

    Attributes:
        module: pixels to logits; the model itself or a copy, frozen and in eval mode.
        precision: ``float32``, ``tf32``, ``bfloat16`` or ``float16``; the last two run under autocast.
        layout: ``channels-last`` or ``contiguous``.
        is_model: whether it is the model itself, so that its logits need no verification.
        limit: how far its answers may lie from the model's, as
            :func:`robustbench_tin.attacks.acceleration.agreement.distance` has it.
    """

    module: nn.Module
    precision: str = "float32"
    layout: str = "as it is"
    is_model: bool = True
    limit: float = FLOAT32_LIMIT

    @property
    def label(self) -> str:
        """As the records say it: ``bfloat16, channels-last, folded``."""
        return self.precision if self.is_model else _label(self.precision, self.layout)

    def logits(self, images: Tensor) -> object:
        """What the module returns for float32 images."""
        with self._autocast(images.device.type):
            return asked(self.module, images, channels_last=self.layout == "channels-last")

    def laid_out(self, images: Tensor) -> Tensor:
        """The images in the variant's layout."""
        if self.layout == "channels-last":
            return images.contiguous(memory_format=torch.channels_last)
        return images

    def arithmetic(self) -> AbstractContextManager[object]:
        """How its float32 is computed; to be entered around passes forward and backward."""
        return tf32() if self.precision == "tf32" else nullcontext()

    def _autocast(self, device: str) -> AbstractContextManager[object]:
        if self.precision in _FLOAT32_KINDS:
            return nullcontext()
        return torch.autocast(device, getattr(torch, self.precision))


class SelectedVariants:
    """The variants chosen for one way of searching: the one to search with, and one never below float32.

    A copy of the model is made when it is first asked for.

    Args:
        model: what the variants are of.
        images: a few that stand for those to be attacked, float32 ``(N, C, H, W)``.
        labels: of the variant to search with and of the precise one; both agree with the model.
        live: one of them, where it has been made already.
        rivals: labels that the precise one is to be chosen from, by its answers' speed, once it is asked for;
            none: it is the one given.

    Attributes:
        labels: as given, or as chosen since.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: tuple[str, str],
        live: ModelVariant,
        rivals: Sequence[str] = (),
    ) -> None:
        self.labels = labels
        self._model = model
        self._images = images.clone()
        self._live = {live.label: live}
        self._rivals = rivals or labels[1:]
        self._answering: ModelVariant | None = None

    def variant(self, *, precise: bool = False) -> ModelVariant:
        """The variant to search with, or the precise one."""
        label = self.labels[precise]
        if label not in self._live:
            with own_randomness(self._images.device):
                self._live[label] = _made(label, self._model, self._images) or ModelVariant(self._model)
        return self._live[label]

    def answering(self) -> ModelVariant:
        """The precise variant for answers alone, which gives no gradients; some attacks want thousands."""
        if self._answering is None:
            batch = self._images.repeat(-(-_ANSWERED // len(self._images)), 1, 1, 1)[:_ANSWERED]
            with own_randomness(batch.device):
                variants = [self._made_for_answers(label, batch) for label in self._rivals]
                self._answering = variants[0] if len(variants) == 1 else _quickest(variants, batch)
            self.labels = (self.labels[0], self._answering.label)
        return self._answering

    def refute(self) -> None:
        """Take the model itself from now on: one of the variants was found to be wrong."""
        plain = ModelVariant(self._model)
        self.labels = (plain.label, plain.label)
        self._live = {plain.label: plain}
        self._rivals = self.labels[1:]
        self._answering = None

    def _made_for_answers(self, label: str, batch: Tensor) -> ModelVariant:
        """The variant that is there, else one with packed weights: both together would take memory."""
        if label in self._live:
            return self._live[label]
        variant = _made(label, self._model, self._images) or ModelVariant(self._model)
        if variant.is_model or batch.device.type != "cpu" or pack(variant.module, variant.laid_out(batch)):
            return variant
        del variant  # before there is another
        return _made(label, self._model, self._images) or ModelVariant(self._model)


class VariantCache:
    """The variants of one model, chosen once for each way of searching.

    Args:
        recalled: labels as an earlier one had them, so that a run that continues, or is checked later,
            searches as it did.
    """

    def __init__(self, recalled: Mapping[str, Sequence[str]] | None = None) -> None:
        known = {search: tuple(labels) for search, labels in (recalled or {}).items()}
        self._refuted = set(known.pop(_REFUTED, ()))
        # A file may have been changed: what is no pair is chosen anew.
        self._recalled = {search: labels for search, labels in known.items() if len(labels) == 2}
        self._chosen: dict[str, SelectedVariants] = {}
        self._chosen_for: dict[str, nn.Module] = {}

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """What has been chosen and what was found to be wrong, to be recalled."""
        refuted = {_REFUTED: tuple(sorted(self._refuted))} if self._refuted else {}
        return {
            **self._recalled,
            **{search: chosen.labels for search, chosen in self._chosen.items()},
            **refuted,
        }

    def choose(self, search: str, model: nn.Module, images: Tensor) -> SelectedVariants:
        """The variants for one way of searching.

        Once a variant was found to be wrong, it is the model itself, whatever the way.

        Args:
            search: one of :data:`SEARCHES`.
            model: frozen and in eval mode.
            images: some that stand for those to be attacked, float32 ``(N, C, H, W)``, such as
                :func:`robustbench_tin.attacks.engine.image_batches.drawn` gives; :func:`probed` says how
                many will do.

        Raises:
            InvalidSettingError: for another word.
        """
        if search not in SEARCHES:
            raise InvalidSettingError(f"search got '{search}'; expected one of {', '.join(SEARCHES)}")
        search = "fastest" if search == "auto" else search
        if search not in self._chosen or self._chosen_for.get(search) is not model:
            self._chosen_for[search] = model
            labels = (
                _FIXED["exact"]
                if self._refuted
                else self._recalled.get(search, _fixed(search, images.device))
            )
            images = images[:_MOST_PROBED]
            # How many passes the choice takes must not decide what a random model draws afterwards.
            with own_randomness(images.device):
                if labels is None:
                    self._chosen[search] = _timed(model, images)
                else:
                    self._chosen[search] = _named(model, images, labels)
        return self._chosen[search]

    def refute(self, label: str) -> None:
        """Search with the model itself from now on, in every way: the variant of this label was wrong."""
        self._refuted.add(label)
        for chosen in self._chosen.values():
            chosen.refute()

    def misled(self, label: str) -> bool:
        """Whether a search used the variant of this label, and any variant was found wrong since."""
        return bool(self._refuted) and label != _PLAIN


def probed(attacked: int) -> int:
    """How many images a variant is chosen with where so many are to be attacked."""
    return max(_FEWEST_PROBED, min(_MOST_PROBED, int(attacked * _PROBED_PART)))


def _fixed(search: str, device: torch.device) -> Sequence[str] | None:
    """The labels that a way of searching always has on a device; None: they are to be timed."""
    return _FIXED_ON_GPU if search == "fixed" and has_tf32(device) else _FIXED.get(search)


def _named(model: nn.Module, images: Tensor, labels: Sequence[str]) -> SelectedVariants:
    """The variants of these labels where they agree with the model, else the model itself."""
    plain = ModelVariant(model)
    ours: SampleOutput | None = None
    agreeing = {_PLAIN: plain.label}
    live = plain
    # The one to search with last, so that the other is gone before it is made.
    for label in dict.fromkeys((labels[1], labels[0])):
        # A lower precision hides what a wrong copy changes: only of a copy that agrees in float32.
        if label == _PLAIN or agreeing.get(labels[1], labels[1]) != labels[1]:
            continue
        ours = ours or sample_output(plain, images, _FEWEST_GRADED)
        variant = _agreeing(_made(label, model, images), ours, images, _FEWEST_GRADED)
        live = variant if variant is not None and label == labels[0] else plain
        agreeing[label] = label if variant is not None else _PLAIN
        del variant
    return SelectedVariants(model, images, (agreeing.get(labels[0], _PLAIN), agreeing[labels[1]]), live)


def _timed(model: nn.Module, images: Tensor) -> SelectedVariants:
    """The fastest variant that agrees with the model, and the fastest of them in float32."""
    plain = ModelVariant(model)
    graded = max(_FEWEST_GRADED, len(images) // 2)
    ours = sample_output(plain, images, graded)
    if ours is None:
        return SelectedVariants(model, images, (_PLAIN, _PLAIN), plain)
    layouts = _LAYOUTS.get(images.device.type, _BOTH_LAYOUTS)
    exact, seconds, rivals = _timed_exact(plain, ours, images, layouts, graded)
    fastest: _Timing | None = None
    # A lower precision hides what a wrong copy changes: only of copies that agree in float32.
    right = [layout for layout in layouts if _label("float32", layout) in rivals]
    for precision in _lower_precisions(images.device):
        for layout in right:
            variant = _agreeing(_make(model, images, precision, layout), ours, images, graded)
            fastest = _faster(fastest, variant, images[:graded])
    if fastest is None or fastest.seconds > _WORTH * seconds:
        return SelectedVariants(model, images, (exact, exact), plain, rivals)
    return SelectedVariants(model, images, (fastest.variant.label, exact), fastest.variant, rivals)


def _timed_exact(
    plain: ModelVariant, ours: SampleOutput, images: Tensor, layouts: Sequence[str], graded: int
) -> tuple[str, float, Sequence[str]]:
    """The fastest variant in float32: its label, its seconds, and the labels of all that agree.

    No variant outlives this: made again where it is wanted, it takes no memory while others are tried.
    """
    best = _Timing(plain, ours.seconds)
    rivals = [_PLAIN]
    for layout in layouts:
        variant = _agreeing(_make(plain.module, images, "float32", layout), ours, images, graded)
        if variant is not None:
            rivals.append(variant.label)
            best = _faster(best, variant, images[:graded]) or best
    return best.variant.label, best.seconds, rivals if len(rivals) > 1 else ()


@dataclass(frozen=True)
class _Timing:
    """A variant and the least time that it took for a probe."""

    variant: ModelVariant
    seconds: float


def _faster(best: _Timing | None, variant: ModelVariant | None, images: Tensor) -> _Timing | None:
    """The faster of the best so far and a variant that agrees with the model; no more than two are alive."""
    if variant is None:
        return best
    # The probe that it agreed in also paid for kernels being made ready.
    challenger = _Timing(variant, _seconds(variant, images))
    if best is None:
        return challenger
    best = _Timing(best.variant, min(best.seconds, _seconds(best.variant, images)))
    return min(best, challenger, key=lambda timing: timing.seconds)


def _seconds(variant: ModelVariant, images: Tensor) -> float:
    """For a forward and a backward pass."""
    again = sample_output(variant, images, len(images))
    return math.inf if again is None else again.seconds


def _agreeing(
    variant: ModelVariant | None, ours: SampleOutput | None, images: Tensor, graded: int
) -> ModelVariant | None:
    """The variant with the limit that its answers keep to; None if it does not agree with the model."""
    limit = None if variant is None else limit_of(sample_output(variant, images, graded), ours)
    return None if variant is None or limit is None else replace(variant, limit=limit)


def _label(precision: str, layout: str) -> str:
    return f"{precision}, {layout}, folded"


def _made(label: str, model: nn.Module, images: Tensor) -> ModelVariant | None:
    """The variant of that label; None where it cannot be made."""
    if label == _PLAIN:
        return ModelVariant(model)
    kind = _KINDS.get(label)
    return None if kind is None else _make(model, images, *kind)


_KINDS = {
    _label(precision, layout): (precision, layout)
    for precision in (*_FLOAT32_KINDS, "bfloat16", "float16")
    for layout in _BOTH_LAYOUTS
}
"""Precision and layout of each variant that there may be, by its label."""


def _lower_precisions(device: torch.device) -> list[str]:
    if device.type == "cuda":
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["tf32"] * has_tf32(device) + ["bfloat16"] * bfloat16 + ["float16"]
    native = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ["bfloat16"] if native else []


def _make(model: nn.Module, images: Tensor, precision: str, layout: str) -> ModelVariant | None:
    """The variant, or None where the model cannot be copied or folded."""
    try:
        module = folded(model, images)
        if images.device.type == "cpu":
            module = with_tiny_maps_multiplied(with_quick_stems(module), images[:2])
        if layout == "channels-last":
            module = module.to(memory_format=torch.channels_last)
        if precision not in _FLOAT32_KINDS:
            # Autocast would cast the weights anew in every pass.
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.to(getattr(torch, precision))
    except Exception:  # noqa: BLE001 - any model may come; one that cannot be copied is searched as it is
        return None
    to_eval_mode(module)
    # One by one: a script refuses to have all of its parameters frozen at once.
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return ModelVariant(module, precision, layout, is_model=False)


def _quickest(variants: Sequence[ModelVariant], images: Tensor) -> ModelVariant:
    """The variant with the quickest forward pass of several each, made in turn."""
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
