"""Forms of a model to search with: other memory layouts and precisions, batch norm folded.

A search needs gradients and comparisons, not the last bit; what it finds is verified with the model
itself in float32 before it counts. So the cheapest form that agrees with the model will do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.folding import folded
from robustbench_tin.attacks.randomness import own_randomness, seed_randomness
from robustbench_tin.errors import InvalidSettingError

# Agreement asked of a form on the first images: how alike gradients point, how often answers are the same.
_LEAST_COSINE = {"float32": 0.999, "bfloat16": 0.9, "float16": 0.9}
_LEAST_SAME_ANSWER = 0.95
# And how far logits may lie apart, in units of their spread.
_MOST_APART = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
_TIMED_IMAGES = 32
_ROUNDS = 3
# A lower precision has to save this much to be worth its noise.
_WORTH = 0.85

SEARCHES = ("auto", "fixed", "fastest", "exact")
"""Ways of searching, each where the form agrees with the model, which is taken otherwise.

``exact``: the model itself; ``fixed``: float32, batch norm folded, channels last; ``fastest``: the fastest
form there is, by timing; ``auto`` leaves the choice to the caller, and is ``fastest`` here.
"""

_PLAIN = "float32"
_FIXED: dict[str, Sequence[str]] = {"exact": [_PLAIN] * 2, "fixed": ["float32, channels-last, folded"] * 2}


@dataclass(frozen=True)
class Form:
    """A model made ready to be searched with.

    Attributes:
        module: pixels to logits; the model itself or a copy, frozen and in eval mode.
        precision: ``float32``, ``bfloat16`` or ``float16``; below float32 it runs under autocast.
        layout: ``channels-last`` or ``contiguous``.
        is_model: whether it is the model itself, so that its logits need no verification.
    """

    module: nn.Module
    precision: str = "float32"
    layout: str = "as it is"
    is_model: bool = True

    @property
    def label(self) -> str:
        """As the records say it: ``bfloat16, channels-last, folded``."""
        return self.precision if self.is_model else f"{self.precision}, {self.layout}, folded"

    def logits(self, images: Tensor) -> object:
        """What the module returns for float32 images."""
        if self.layout == "channels-last":
            images = images.contiguous(memory_format=torch.channels_last)
        with self._autocast(images.device.type):
            return self.module(images)

    def _autocast(self, device: str) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device, getattr(torch, self.precision))


class Forms:
    """The forms of one model, chosen once for each way of searching.

    Args:
        recalled: labels chosen before, by way of searching, so that a run which goes on, or is checked later,
            searches as it did.
    """

    def __init__(self, recalled: Mapping[str, Sequence[str]] | None = None) -> None:
        self._recalled = dict(recalled or {})
        self._chosen: dict[str, tuple[Form, Form]] = {}
        self._chosen_for: dict[str, nn.Module] = {}

    @property
    def labels(self) -> dict[str, tuple[str, str]]:
        """What has been chosen, to be recalled."""
        return {search: (fast.label, exact.label) for search, (fast, exact) in self._chosen.items()}

    def choose(self, search: str, model: nn.Module, images: Tensor) -> tuple[Form, Form]:
        """The form to search with, and one that is never below float32.

        Args:
            search: one of :data:`SEARCHES`.
            model: frozen and in eval mode.
            images: the first images, float32 ``(N, C, H, W)``.

        Raises:
            InvalidSettingError: for another word.
        """
        if search not in SEARCHES:
            raise InvalidSettingError(f"search got '{search}'; expected one of {', '.join(SEARCHES)}")
        search = "fastest" if search == "auto" else search
        if search not in self._chosen or self._chosen_for.get(search) is not model:
            self._chosen_for[search] = model
            labels = self._recalled.get(search, _FIXED.get(search))
            # How many passes the choice takes must not decide what a random model draws afterwards.
            with own_randomness(images.device):
                if labels is None:
                    self._chosen[search] = _timed(model, images)
                else:
                    fast, exact = (_labelled(label, model, images) for label in labels)
                    self._chosen[search] = fast, exact
        return self._chosen[search]


def _labelled(label: str, model: nn.Module, images: Tensor) -> Form:
    """The form of that label where it agrees with the model, else the model itself."""
    if label == _PLAIN:
        return Form(model)
    precision, layout = label.split(", ")[:2]
    form = _make(model, images, precision, layout)
    return form if form is not None and _agrees(form, model, images) else Form(model)


def _timed(model: nn.Module, images: Tensor) -> tuple[Form, Form]:
    """The fastest form that agrees with the model, and the fastest of them in float32."""
    sample = images[:_TIMED_IMAGES]
    forms = [Form(model)]
    for precision in ["float32", *_lower_precisions(sample.device)]:
        for layout in ("channels-last", "contiguous"):
            form = _make(model, sample, precision, layout)
            if form is not None and _agrees(form, model, sample):
                forms.append(form)
    seconds = _interleaved_seconds(forms, sample)
    exact = min((i for i, form in enumerate(forms) if form.precision == "float32"), key=seconds.__getitem__)
    fastest = min(range(len(forms)), key=seconds.__getitem__)
    if seconds[fastest] > _WORTH * seconds[exact]:
        fastest = exact
    return forms[fastest], forms[exact]


def _lower_precisions(device: torch.device) -> list[str]:
    if device.type == "cuda":
        return (
            ["bfloat16", "float16"]
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else ["float16"]
        )
    native = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ["bfloat16"] if native else []


def _make(model: nn.Module, images: Tensor, precision: str, layout: str) -> Form | None:
    """The form, or None where the model cannot be copied or folded."""
    try:
        module = folded(model, images[:2])
        if layout == "channels-last":
            module = module.to(memory_format=torch.channels_last)
        if precision != "float32":
            # Autocast would cast the weights anew in every pass.
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.to(getattr(torch, precision))
    except Exception:  # noqa: BLE001 - any model may come; one that cannot be copied is searched as it is
        return None
    return Form(module.eval().requires_grad_(False), precision, layout, is_model=False)


def _agrees(form: Form, model: nn.Module, images: Tensor) -> bool:
    """Whether gradients and answers on some images are those of the model; uses up torch's random state."""
    sample = images[:_TIMED_IMAGES]
    try:
        # The same draws for both, where the model is random at test time.
        seed_randomness(sample.device, "agreement")
        theirs, their_gradient = _probe(form, sample)
        seed_randomness(sample.device, "agreement")
        ours, our_gradient = _probe(Form(model), sample)
    except Exception:  # noqa: BLE001 - an operation that this precision lacks, a model without gradients
        return False
    if not bool(torch.isfinite(theirs).all() & torch.isfinite(their_gradient).all()):
        return False
    same = (theirs.argmax(dim=1) == ours.argmax(dim=1)).float().mean()
    apart = (theirs - ours).abs().median() / (ours.std() + 1e-12)
    cosine = torch.cosine_similarity(their_gradient.flatten(1), our_gradient.flatten(1), dim=1).median()
    return bool(
        (same >= _LEAST_SAME_ANSWER)
        & (cosine >= _LEAST_COSINE[form.precision])
        & (apart <= _MOST_APART[form.precision])
    )


def _probe(form: Form, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of the largest one less the mean."""
    with torch.inference_mode(False), torch.enable_grad():
        variable = images.clone().requires_grad_()
        logits = form.logits(variable)
        assert isinstance(logits, Tensor)
        logits = logits.float()
        (gradient,) = torch.autograd.grad((logits.amax(dim=1) - logits.mean(dim=1)).sum(), variable)
    return logits.detach(), gradient


def _interleaved_seconds(forms: Sequence[Form], images: Tensor) -> list[float]:
    """The least time of a forward and backward pass of each, taken in turns."""
    best = [float("inf")] * len(forms)
    for _ in range(_ROUNDS):
        for index, form in enumerate(forms):
            _wait(images.device)
            started = time.perf_counter()
            _probe(form, images)
            _wait(images.device)
            best[index] = min(best[index], time.perf_counter() - started)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
