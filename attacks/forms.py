"""Forms of a model to search with: other memory layouts and precisions, batch norm folded.

A search needs gradients and comparisons, not the last bit; what it finds is verified with the model
itself in float32 before it counts. So the cheapest form that agrees with the model will do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.asking import asked
from robustbench_tin.attacks.folding import folded
from robustbench_tin.attacks.packing import pack
from robustbench_tin.attacks.randomness import own_randomness, seed_randomness
from robustbench_tin.attacks.stem import with_quick_stems
from robustbench_tin.attacks.tiny_maps import with_tiny_maps_multiplied
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.modes import to_eval_mode

# Agreement asked of a form on the first images: how alike gradients point, how often answers are the same.
_LEAST_COSINE = {"float32": 0.999, "bfloat16": 0.9, "float16": 0.9}
_LEAST_SAME_ANSWER = 0.95
# And how far logits may lie apart, in units of their spread.
_MOST_APART = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
# A choice may cost this part of a pass over the images to be attacked, within these bounds.
_PROBED_PART = 1 / 32
_FEWEST_PROBED, _MOST_PROBED = 8, 32
# Forward passes that the precise form is chosen by; other work on the machine may disturb a few of them.
_ROUNDS = 5
# A lower precision has to save this much to be worth its noise.
_WORTH = 0.85

SEARCHES = ("auto", "fixed", "fastest", "exact")
"""Ways of searching, each where the form agrees with the model, which is taken otherwise.

``exact``: the model itself; ``fixed``: float32, batch norm folded, channels last; ``fastest``: the fastest
form there is, by timing; ``auto`` leaves the choice to the caller, and is ``fastest`` here.
"""

# On a CPU, in batches of 50, channels-last was the faster one of a resnet18; each more costs a choice passes.
_LAYOUTS = {"cpu": ("channels-last",)}
_BOTH_LAYOUTS = ("channels-last", "contiguous")
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
        with self._autocast(images.device.type):
            return asked(self.module, images, channels_last=self.layout == "channels-last")

    def laid_out(self, images: Tensor) -> Tensor:
        """The images in the form's layout."""
        if self.layout == "channels-last":
            return images.contiguous(memory_format=torch.channels_last)
        return images

    def _autocast(self, device: str) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device, getattr(torch, self.precision))


class Chosen:
    """The forms chosen for one way of searching: the one to search with, and one never below float32.

    A copy of the model is made when it is first asked for.

    Args:
        model: what the forms are of.
        images: a few images, float32 ``(N, C, H, W)``.
        labels: of the form to search with and of the precise one; both agree with the model.
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
        live: Form,
        rivals: Sequence[str] = (),
    ) -> None:
        self.labels = labels
        self._model = model
        self._images = images[:_FEWEST_PROBED].clone()
        self._live = {live.label: live}
        self._rivals = rivals or labels[1:]
        self._answering: Form | None = None

    def form(self, *, precise: bool = False) -> Form:
        """The form to search with, or the precise one."""
        label = self.labels[precise]
        if label not in self._live:
            with own_randomness(self._images.device):
                self._live[label] = _made(label, self._model, self._images) or Form(self._model)
        return self._live[label]

    def answering(self) -> Form:
        """The precise form for answers alone, of which some attacks want thousands; it gives no gradients."""
        if self._answering is None:
            batch = self._images.repeat(_MOST_PROBED // len(self._images), 1, 1, 1)
            with own_randomness(batch.device):
                forms = [self._made_for_answers(label, batch) for label in self._rivals]
                self._answering = forms[0] if len(forms) == 1 else _quickest(forms, batch)
            self.labels = (self.labels[0], self._answering.label)
        return self._answering

    def _made_for_answers(self, label: str, batch: Tensor) -> Form:
        """The form that is there, else one whose weights are packed: both beside each other take memory."""
        if label in self._live:
            return self._live[label]
        form = _made(label, self._model, self._images) or Form(self._model)
        if form.is_model or batch.device.type != "cpu" or pack(form.module, form.laid_out(batch)):
            return form
        del form  # before there is another
        return _made(label, self._model, self._images) or Form(self._model)


class Forms:
    """The forms of one model, chosen once for each way of searching.

    Args:
        recalled: labels chosen before, by way of searching, so that a run which goes on, or is checked later,
            searches as it did.
    """

    def __init__(self, recalled: Mapping[str, Sequence[str]] | None = None) -> None:
        self._recalled = dict(recalled or {})
        self._chosen: dict[str, Chosen] = {}
        self._chosen_for: dict[str, nn.Module] = {}

    @property
    def labels(self) -> dict[str, tuple[str, str]]:
        """What has been chosen, to be recalled."""
        return {search: chosen.labels for search, chosen in self._chosen.items()}

    def choose(self, search: str, model: nn.Module, images: Tensor) -> Chosen:
        """The forms for one way of searching.

        Args:
            search: one of :data:`SEARCHES`.
            model: frozen and in eval mode.
            images: the first images, float32 ``(N, C, H, W)``; as many as :func:`probed` says will do.

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
                    self._chosen[search] = _timed(model, images[:_MOST_PROBED])
                else:
                    self._chosen[search] = _named(model, images[:_FEWEST_PROBED], labels)
        return self._chosen[search]


def probed(attacked: int) -> int:
    """How many images a form is chosen with where so many are to be attacked."""
    return max(_FEWEST_PROBED, min(_MOST_PROBED, int(attacked * _PROBED_PART)))


def _named(model: nn.Module, images: Tensor, labels: Sequence[str]) -> Chosen:
    """The forms of these labels where they agree with the model, else the model itself."""
    plain = Form(model)
    ours: _Probe | None = None
    agreeing = {_PLAIN: plain.label}
    live = plain
    # The one to search with last, so that the other is gone before it is made.
    for label in dict.fromkeys((labels[1], labels[0])):
        if label == _PLAIN:
            continue
        ours = ours or _probed(plain, images)
        form = _made(label, model, images)
        agrees = form is not None and _agree(_probed(form, images), ours)
        live = form if agrees and form is not None and label == labels[0] else plain
        agreeing[label] = label if agrees else _PLAIN
    return Chosen(model, images, (agreeing[labels[0]], agreeing[labels[1]]), live)


def _timed(model: nn.Module, images: Tensor) -> Chosen:
    """The fastest form that agrees with the model, and the fastest of them in float32."""
    plain = Form(model)
    ours = _probed(plain, images)
    if ours is None:
        return Chosen(model, images, (_PLAIN, _PLAIN), plain)
    layouts = _LAYOUTS.get(images.device.type, _BOTH_LAYOUTS)
    exact, seconds, rivals = _timed_exact(plain, ours, images, layouts)
    fastest: _Timing | None = None
    for precision in _lower_precisions(images.device):
        for layout in layouts:
            fastest = _faster(fastest, _make(model, images, precision, layout), ours, images)
    if fastest is None or fastest.seconds > _WORTH * seconds:
        return Chosen(model, images, (exact, exact), plain, rivals)
    return Chosen(model, images, (fastest.form.label, exact), fastest.form, rivals)


def _timed_exact(
    plain: Form, ours: _Probe, images: Tensor, layouts: Sequence[str]
) -> tuple[str, float, Sequence[str]]:
    """The fastest form in float32: its label, its seconds, and the labels of all that agree.

    No form outlives this: made again where it is wanted, it takes no memory while others are tried.
    """
    best = _Timing(plain, ours.seconds)
    rivals = [_PLAIN]
    for layout in layouts:
        form = _make(plain.module, images, "float32", layout)
        if form is not None and _agree(_probed(form, images), ours):
            rivals.append(form.label)
            best = _faster(best, form, ours, images) or best
    return best.form.label, best.seconds, rivals if len(rivals) > 1 else ()


@dataclass(frozen=True)
class _Timing:
    """A form and the least time that it took for a probe."""

    form: Form
    seconds: float


def _faster(best: _Timing | None, form: Form | None, ours: _Probe, images: Tensor) -> _Timing | None:
    """The faster of the best so far and a form that agrees with the model; no more than two are alive."""
    first = None if form is None else _probed(form, images)
    if form is None or first is None or not _agree(first, ours):
        return best
    # The first probe also pays for kernels being made ready.
    again = _probed(form, images)
    challenger = _Timing(form, min(first.seconds, again.seconds if again else math.inf))
    if best is None:
        return challenger
    again = _probed(best.form, images)
    best = _Timing(best.form, min(best.seconds, again.seconds if again else math.inf))
    return min(best, challenger, key=lambda timing: timing.seconds)


def _made(label: str, model: nn.Module, images: Tensor) -> Form | None:
    """The form of that label; None where it cannot be made."""
    if label == _PLAIN:
        return Form(model)
    precision, layout = label.split(", ")[:2]
    return _make(model, images, precision, layout)


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
        if images.device.type == "cpu":
            module = with_tiny_maps_multiplied(with_quick_stems(module), images[:2])
        if layout == "channels-last":
            module = module.to(memory_format=torch.channels_last)
        if precision != "float32":
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
    return Form(module, precision, layout, is_model=False)


@dataclass(frozen=True)
class _Probe:
    """What a form said of some images: logits, a gradient, and how long a forward and backward pass took."""

    precision: str
    logits: Tensor
    gradient: Tensor
    seconds: float


def _probed(form: Form, images: Tensor) -> _Probe | None:
    """A probe, None where the form fails; uses up torch's random state.

    The gradient is that of the largest logit less the mean.
    """
    # The same draws for every form, where the model is random at test time.
    seed_randomness(images.device, "agreement")
    try:
        _wait(images.device)
        started = time.perf_counter()
        with torch.inference_mode(False), torch.enable_grad():
            variable = images.clone().requires_grad_()
            logits = form.logits(variable)
            assert isinstance(logits, Tensor)
            logits = logits.float()
            (gradient,) = torch.autograd.grad((logits.amax(dim=1) - logits.mean(dim=1)).sum(), variable)
        _wait(images.device)
    except Exception:  # noqa: BLE001 - an operation that this precision lacks, a model without gradients
        return None
    return _Probe(form.precision, logits.detach(), gradient, time.perf_counter() - started)


def _quickest(forms: Sequence[Form], images: Tensor) -> Form:
    """The form with the quickest forward pass of several each, made in turn."""
    least = [math.inf] * len(forms)
    with torch.no_grad():
        for _ in range(_ROUNDS):
            for number, form in enumerate(forms):
                _wait(images.device)
                started = time.perf_counter()
                form.logits(images)
                _wait(images.device)
                least[number] = min(least[number], time.perf_counter() - started)
    return forms[least.index(min(least))]


def _agree(theirs: _Probe | None, ours: _Probe | None) -> bool:
    """Whether a form's gradients and answers are those of the model."""
    if theirs is None or ours is None:
        return False
    if not bool(torch.isfinite(theirs.logits).all() & torch.isfinite(theirs.gradient).all()):
        return False
    same = (theirs.logits.argmax(dim=1) == ours.logits.argmax(dim=1)).float().mean()
    apart = (theirs.logits - ours.logits).abs().median() / (ours.logits.std() + 1e-12)
    cosine = torch.cosine_similarity(theirs.gradient.flatten(1), ours.gradient.flatten(1), dim=1).median()
    return bool(
        (same >= _LEAST_SAME_ANSWER)
        & (cosine >= _LEAST_COSINE[theirs.precision])
        & (apart <= _MOST_APART[theirs.precision])
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
