"""Models that take or return something else than pixels in [0, 1] and logits, made to do that.

Each adapter lies inside the classifier and is differentiable, so that an attack acts on the data set's own
pixels and eps counts in units of the range [0, 1], whatever the model takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_tin.errors import FOREIGN, InvalidSettingError
from robustbench_tin.models.as_module import FixedBatch
from robustbench_tin.models.classifier import Classifier
from robustbench_tin.models.normalisation import Normalized, Values, normalized
from robustbench_tin.models.outputs import SelectedOutput, parts_of
from robustbench_tin.specs import parse_number

# Of ITU-R BT.601, as Pillow's and torchvision's grayscale; they sum to 1.
_LUMINANCE = (0.299, 0.587, 0.114)
_BATCHES = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 25, 32, 40, 48, 50, 64, 96, 100, 128, 200, 256)
_LARGEST = 1e6


class Ranged(nn.Module):
    """A model that takes images in another range than [0, 1].

    Args:
        model: images in [low, high] to logits.
        low: its value of black.
        high: its value of white.
    """

    def __init__(self, model: nn.Module, low: float, high: float) -> None:
        super().__init__()
        self.model = model
        self.low = low
        self.high = high

    def forward(self, images: Tensor) -> Tensor:
        """Logits of pixels in [0, 1]."""
        logits: Tensor = self.model(images * (self.high - self.low) + self.low)
        return logits


class OtherChannels(nn.Module):
    """A model of one channel that gets the luminance of coloured images, or one of three that gets gray ones.

    Args:
        model: ``(N, 1, H, W)`` or ``(N, 3, H, W)`` to logits.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images, coloured ``(N, 3, H, W)`` or gray ``(N, 1, H, W)``."""
        turned = other_channels(images)
        if isinstance(self.model, Normalized):
            self.model.require_channels(turned.shape[1])
        logits: Tensor = self.model(turned)
        return logits


def other_channels(images: Tensor) -> Tensor:
    """Coloured images ``(N, 3, H, W)`` as their luminance, gray ones ``(N, 1, H, W)`` repeated three times.

    Raises:
        InvalidSettingError: for another number of channels.
    """
    channels = images.shape[1]
    if channels == 1:
        return images.expand(-1, 3, -1, -1)
    if channels != 3:
        raise InvalidSettingError(f"grayscale got images of {channels} channels; expected 1 or 3")
    weights = images.new_tensor(_LUMINANCE).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Adaptation:
    """What stands between pixels and a model, and between its answer and logits.

    Attributes:
        output: the part of its answer that the logits are, by name or number; None: it returns logits.
        batch_size: images that the model is called with at most; None: any number.
        pad: fill the last batch up, so that the model always gets ``batch_size`` images; the answers to what
            was filled in are dropped.
        grayscale: see :class:`OtherChannels`.
        value_range: values of black and white; None: 0 and 1, or as normalisation makes them.

    Raises:
        InvalidSettingError: for ``pad`` without a batch size, and for a range that is none.
    """

    output: str | int | None = None
    batch_size: int | None = None
    pad: bool = False
    grayscale: bool = False
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.pad and self.batch_size is None:
            raise InvalidSettingError("got pad without batch-size; give both, such as --batch-size 8 --pad")
        if self.batch_size is not None and not (isinstance(self.batch_size, int) and self.batch_size > 0):
            raise InvalidSettingError(f"batch-size got {self.batch_size}; expected a whole number, 1 or more")
        if self.value_range is not None:
            _require_range(self.value_range)

    def require_alone(self, normalised: bool) -> None:
        """Refuse a range beside a normalisation, which makes a range of its own.

        Raises:
            InvalidSettingError: if both are given.
        """
        if normalised and self.value_range is not None:
            raise InvalidSettingError(
                "got both range and a normalisation (--normalize, --mean); give one of them"
            )

    def inside(self, model: nn.Module) -> nn.Module:
        """The model with what belongs below a normalisation: the choice of an output, and batches.

        Raises:
            InvalidSettingError: for a backbone, which needs none of this.
        """
        if self == Adaptation():
            return model
        if isinstance(model, Classifier):
            raise InvalidSettingError(
                f"model '{model.backbone}' is a backbone, from pixels in [0, 1] to logits; leave --output,"
                " --batch-size, --grayscale and --range out"
            )
        size, pad = self.batch_size, self.pad
        # An exported program of one batch size is in its cover already; what is chosen goes under it.
        if isinstance(model, FixedBatch):
            size, pad, model = model.size, model.pad, model.program
        if self.output is not None:
            model = SelectedOutput(model, self.output)
        return model if size is None else FixedBatch(model, size, pad=pad)

    def outside(self, model: nn.Module) -> nn.Module:
        """The model with what belongs above a normalisation: range and channels."""
        if self.value_range is not None:
            model = Ranged(model, *self.value_range)
        return OtherChannels(model) if self.grayscale else model


def adapted(model: nn.Module, mean: Values | None, std: Values | None, adaptation: Adaptation) -> nn.Module:
    """The model as one from pixels in [0, 1] to logits: adapted, and normalised if mean and std are given.

    Raises:
        InvalidSettingError: for settings that exclude each other, and for values that are none.
    """
    adaptation.require_alone(mean is not None)
    return adaptation.outside(normalized(adaptation.inside(model), mean, std))


def parse_range(text: str) -> tuple[float, float]:
    """Values of black and white, as a command line has them.

    >>> parse_range("-1,1")
    (-1.0, 1.0)

    Raises:
        InvalidSettingError: for anything else.
    """
    try:
        low, high = (parse_number(item) for item in text.split(","))
    except ValueError:
        raise InvalidSettingError(
            f"range got '{text}'; expected the values of black and white, such as -1,1 or 0,255"
        ) from None
    return low, high


def adapter_hint(ask: Callable[[Tensor], object], image: Tensor) -> str | None:
    """The options under which a model takes images that it fails on; None if none of them helps.

    Args:
        ask: calls the model.
        image: one, float32 ``(1, C, H, W)``, that it fails on.
    """
    turnable = (False, True) if image.shape[1] in (1, 3) else (False,)
    for size, turned in itertools.product((1, *_BATCHES), turnable):
        shown = other_channels(image) if turned else image
        if _answers(ask, shown.repeat(size, 1, 1, 1)):
            return "; ".join(_told(image.shape[1] if turned else None, size))
    return None


def _told(channels: int | None, size: int) -> Iterator[str]:
    if channels is not None:
        yield (
            f"the model takes images of {4 - channels} channel{'s' if channels == 1 else ''}, and these have"
            f" {channels}: give --grayscale (in Python: grayscale=True)"
        )
    if size > 1:
        yield (
            f"the model takes batches of {size} images: give --batch-size {size} --pad (in Python:"
            f" batch_size={size}, pad=True)"
        )


def _answers(ask: Callable[[Tensor], object], images: Tensor) -> bool:
    """Whether a model answers these images, one answer each."""
    try:
        with torch.no_grad():
            answer = ask(images)
    except FOREIGN:
        return False
    parts: Sequence[object] = list((parts_of(answer) or {"": answer}).values())
    return any(isinstance(part, Tensor) and part.ndim == 2 and len(part) == len(images) for part in parts)


def _require_range(given: tuple[float, float]) -> None:
    numbers = all(isinstance(value, int | float) and abs(value) <= _LARGEST for value in given)
    if len(given) != 2 or not numbers or given[0] >= given[1]:
        raise InvalidSettingError(
            f"range got {','.join(map(str, given))}; expected the values of black and white, the lower"
            " first, such as -1,1 or 0,255"
        )
