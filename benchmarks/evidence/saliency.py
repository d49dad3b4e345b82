"""Saliency shows where a classifier looks; its share inside the object's box is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_tin.benchmarks.evidence.choices import Kind

Box = tuple[int, int, int, int]
"""``x0, y0, x1, y1`` in pixels, both corners included."""


@dataclass(frozen=True)
class SaliencyShare:
    """The mean share of the attribution inside the box, of one cell and one kind of image.

    Attributes:
        cell: MODEL/DEFENSE/SEED.
        method: see :class:`Method`.
        images: number of images with a usable box and a map that is not zero everywhere.
        mean: mean over the images, in [0, 1].
        low: lower end of its 95 % interval (Student's t over the images), in [0, 1].
        high: upper end of that interval.
        kind: see :class:`Kind`.
        chance: mean share of the image's area inside the box, which a uniform map would score.
        above_chance: mean of the differences between an image's share and its chance, in [-1, 1].
        above_low: lower end of the 95 % interval of that mean, in [-1, 1].
        above_high: upper end of that interval.
        attack: spec of the adversarial images' attack; empty for other kinds.
        eps: budget of that attack; 0 for other kinds.
    """

    cell: str
    method: str
    images: int
    mean: float
    low: float
    high: float
    kind: str = Kind.clean
    chance: float = 0.0
    above_chance: float = 0.0
    above_low: float = -1.0
    above_high: float = 1.0
    attack: str = ""
    eps: float = 0.0


@dataclass(frozen=True)
class SaliencyImage:
    """The map of one image.

    Attributes:
        cell: MODEL/DEFENSE/SEED.
        method: see :class:`Method`.
        index: number of the image among the run's evaluated images.
        label: true class.
        kind: see :class:`Kind`.
        image: uint8 ``(H, W, 3)``.
        map: uint8 ``(H, W)``, 255 at its largest value.
        box: box of the object in this image; None without a usable one.
        share: share of the map inside the box, in [0, 1]; NaN without a box.
        predicted: the explained class; -1 if unknown.
    """

    cell: str
    method: str
    index: int
    label: int
    kind: str
    image: npt.NDArray[np.uint8]
    map: npt.NDArray[np.uint8]
    box: Box | None
    share: float
    predicted: int = -1


def box_mask(box: Box, height: int, width: int) -> npt.NDArray[np.bool_]:
    """The pixels inside a box, bool ``(height, width)``."""
    x0, y0, x1, y1 = box
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def share_inside(attribution: npt.NDArray[np.floating], box: Box) -> float:
    """The share of a map inside a box; NaN for a map that is zero everywhere.

    Args:
        attribution: values of at least 0, ``(H, W)``.
        box: see :data:`Box`.

    >>> share_inside(np.eye(4), (0, 0, 1, 1))
    0.5
    """
    total = float(attribution.sum(dtype=np.float64))
    inside = float(attribution[box_mask(box, *attribution.shape)].sum(dtype=np.float64))
    return inside / total if total > 0 else float("nan")


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval (Student's t); for a single value the interval is infinite."""
    from scipy import stats

    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf(0.975, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return mean, mean - half, mean + half


def mean_share(cell: str, method: str, kind: str, pairs: Sequence[tuple[float, float]]) -> SaliencyShare:
    """The mean share over images.

    Args:
        cell: MODEL/DEFENSE/SEED.
        method: see :class:`Method`.
        kind: see :class:`Kind`.
        pairs: for each image, at least one: its share, and the share of its area inside the box.
    """
    mean, low, high = mean_interval([share for share, _ in pairs])
    above, above_low, above_high = mean_interval([share - chance for share, chance in pairs])
    return SaliencyShare(
        cell=cell,
        method=method,
        images=len(pairs),
        mean=mean,
        low=max(0.0, low),
        high=min(1.0, high),
        kind=kind,
        chance=float(np.mean([chance for _, chance in pairs])),
        above_chance=above,
        above_low=max(-1.0, above_low),
        above_high=min(1.0, above_high),
    )
