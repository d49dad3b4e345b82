"""Progressive resizing: the first epochs use smaller images, which cost less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from robustbench_tin.errors import InvalidSettingError

# Fractions of the epochs at which the smallest and the middle side end.
_SMALLEST_TO, _MIDDLE_TO = 0.3, 0.6
# Sides below the full one are multiples of this many pixels, so that strides divide them.
_MULTIPLE = 8


def side(full: int, start: float, epoch: int, epochs: int) -> int:
    """The image side in pixels of an epoch: small for the first 30 % of the epochs, then halfway to full.

    The last 40 % train at the full side, so that weights and statistics end at the size of the measurement,
    as in Tan and Le, 2021, "EfficientNetV2", arXiv 2104.00298.

    Args:
        full: side in pixels at which the network is measured.
        start: first side, as a fraction of the full side; 1 for the full side throughout.
        epoch: the epoch, from 0.
        epochs: number of epochs.

    >>> [side(64, 0.5, epoch, 5) for epoch in range(5)]
    [32, 48, 48, 64, 64]
    """
    done = (epoch + 1) / epochs
    if start == 1 or done > _MIDDLE_TO:
        return full
    part = start if done <= _SMALLEST_TO else (1 + start) / 2
    return min(full, max(_MULTIPLE, round(part * full / _MULTIPLE) * _MULTIPLE))


def sides(full: int, start: float, epochs: int) -> list[int]:
    """The side of each epoch."""
    return [side(full, start, epoch, epochs) for epoch in range(epochs)]


@contextmanager
def trained_at(classifier: nn.Module, start: float, epoch: int, epochs: int) -> Iterator[None]:
    """Resize the classifier's input to the side of this epoch inside the block; restore it afterwards.

    Args:
        classifier: must have an ``input_size``, unless ``start`` is 1.
        start: as in :func:`side`.
        epoch: as in :func:`side`.
        epochs: as in :func:`side`.

    Raises:
        InvalidSettingError: for a classifier that does not resize its images.
    """
    if start == 1:
        yield
        return
    full: int | None = getattr(classifier, "input_size", None)
    if full is None:
        raise InvalidSettingError(
            f"progressive got {start} with a {type(classifier).__name__}, which has no input_size; expected a"
            " Classifier, or progressive=1"
        )
    classifier.input_size = side(full, start, epoch, epochs)  # type: ignore[assignment]
    try:
        yield
    finally:
        classifier.input_size = full  # type: ignore[assignment]
