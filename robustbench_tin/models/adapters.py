"""Adapters for models whose input is not pixels in [0, 1], or whose output is not logits.

Each adapter lies inside the classifier and is differentiable. An attack therefore acts on the data set's own
pixels, and eps is in units of the range [0, 1], whichever input the model takes.
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

# The weights of ITU-R BT.601, which Pillow's and torchvision's grayscale use too; they sum to 1.
_LUMINANCE = (0.299, 0.587, 0.114)
_BATCHES = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 25, 32, 40, 48, 50, 64, 96, 100, 128, 200, 256)
_LARGEST = 1e6


class Ranged(nn.Module):
    """A model that takes images in another range than [0, 1].

    Args:
        model: maps images in [low, high] to logits.
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
    """Give a model of one channel the luminance of coloured images, or one of three channels gray images.

    Args:
        model: maps ``(N, 1, H, W)`` or ``(N, 3, H, W)`` to logits.
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
        raise InvalidSettingError(
            f"grayscale got images of {channels} channels; expected 1 or 3: leave --grayscale out"
        )
    weights = images.new_tensor(_LUMINANCE).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Adaptation:
    """Adapters between pixels and a model, and between its output and logits.

    Attributes:
        output: name or number of the part of the model's output that holds the logits; None if the model
            returns logits.
        batch_size: largest number of images in one call of the model; None for no limit.
        pad: fill the last batch up, so that the model always gets ``batch_size`` images; outputs for the
            filled rows are dropped.
        grayscale: apply :class:`OtherChannels`.
        value_range: values of black and white; None for 0 and 1, or for those that a normalisation makes.

    Raises:
        InvalidSettingError: for ``pad`` without a batch size, and for an invalid batch size or range.
    """

    output: str | int | None = None
    batch_size: int | None = None
    pad: bool = False
    grayscale: bool = False
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.pad and self.batch_size is None:
            raise InvalidSettingError(
                "got pad without batch-size; give both, for example --batch-size 8 --pad"
            )
        if self.batch_size is not None and not (isinstance(self.batch_size, int) and self.batch_size > 0):
            raise InvalidSettingError(f"batch-size got {self.batch_size}; expected a whole number, 1 or more")
        if self.value_range is not None:
            _require_range(self.value_range)

    def require_alone(self, normalised: bool) -> None:
        """Refuse a range together with a normalisation, which sets a range of its own.

        Raises:
            InvalidSettingError: if both are given.
        """
        if normalised and self.value_range is not None:
            raise InvalidSettingError(
                "got both range and a normalisation (--normalize, --mean); give one of them"
            )

    def inside(self, model: nn.Module) -> nn.Module:
        """The model with the adapters below a normalisation: selected output, and batches.

        Raises:
            InvalidSettingError: for a backbone, which needs no adapter.
        """
        if self == Adaptation():
            return model
        if isinstance(model, Classifier):
            raise InvalidSettingError(
                f"model '{model.backbone}' is a backbone, which maps pixels in [0, 1] to logits; leave"
                " --output, --batch-size, --grayscale and --range out"
            )
        size, pad = self.batch_size, self.pad
        # An exported program with one batch size is wrapped already; the selected output goes inside.
        if isinstance(model, FixedBatch):
            size, pad, model = model.size, model.pad, model.program
        if self.output is not None:
            model = SelectedOutput(model, self.output)
        return model if size is None else FixedBatch(model, size, pad=pad)

    def outside(self, model: nn.Module) -> nn.Module:
        """The model with the adapters above a normalisation: range and channels."""
        if self.value_range is not None:
            model = Ranged(model, *self.value_range)
        return OtherChannels(model) if self.grayscale else model


def adapted(model: nn.Module, mean: Values | None, std: Values | None, adaptation: Adaptation) -> nn.Module:
    """The model adapted to map pixels in [0, 1] to logits, and normalised if mean and std are given.

    Raises:
        InvalidSettingError: for settings that exclude each other, and for invalid values.
    """
    adaptation.require_alone(mean is not None)
    return adaptation.outside(normalized(adaptation.inside(model), mean, std))


def parse_range(text: str) -> tuple[float, float]:
    """Values of black and white from the text of an option.

    >>> parse_range("-1,1")
    (-1.0, 1.0)

    Raises:
        InvalidSettingError: for any other text.
    """
    try:
        low, high = (parse_number(item) for item in text.split(","))
    except ValueError:
        raise InvalidSettingError(
            f"range got '{text}'; expected the values of black and white, for example -1,1 or 0,255"
        ) from None
    return low, high


def adapter_hint(ask: Callable[[Tensor], object], image: Tensor) -> str | None:
    """The options with which a model accepts images that it fails on; None if none of them helps.

    Args:
        ask: calls the model.
        image: one image that it fails on, float32 ``(1, C, H, W)``.
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
    """True if a model returns one row for each of these images."""
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
            " first, for example -1,1 or 0,255"
        )
