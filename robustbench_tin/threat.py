"""Threat models: a norm and a budget, and the ball of images that they allow.

``eps`` is in units of the pixel range [0, 1]. For ``linf`` it is the largest change of any one value, for
``l2`` the Euclidean length of the change over all values of an image. Every ball is intersected with the
pixel box [0, 1]. The linf ball is exact to the last bit: bounds are rounded towards the image, so that a
float32 image inside them differs by at most eps in exact arithmetic. The l2 norm is computed in float64 and
may exceed eps by at most :data:`L2_TOLERANCE`, relative.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.runtime import is_asynchronous
from robustbench_tin.specs import eps_text, number_text, parse_number, split_items

NORMS = ("linf", "l2")
L2_TOLERANCE = 1e-6

Number = float | np.number[Any] | npt.NDArray[Any] | Tensor
Budgets = str | Number | Iterable[str | Number]
# Six standard deviations of the effect that rounding pixels to float32 has on the length of a change.
_ROUNDING = 1e-7
# The possible values of an 8-bit image.
_GRID = torch.arange(256, dtype=torch.float32) / 255


def parse_eps(eps: str | Number, norm: str | None = None) -> float:
    """Read one budget, ``0.03`` or ``8/255``.

    Args:
        eps: a text, or a number of any type: Python's, NumPy's, or a tensor of one value.
        norm: the norm of the budget; None if it is not known yet.

    Returns:
        The budget in units of the pixel range [0, 1].

    Raises:
        InvalidSettingError: if it is not a number, or not a budget in that norm.

    >>> parse_eps("8/255") == 8 / 255, parse_eps(0.03)
    (True, 0.03)
    """
    try:
        number = parse_number(eps) if isinstance(eps, str) else _as_float(eps)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        given = " ".join((f"'{eps}'" if isinstance(eps, str) else repr(eps)).split())[:80]
        raise InvalidSettingError(
            f"eps got {given}; expected a number such as 0.03 or 8/255, in units of the pixel range [0, 1]"
        ) from None
    return check_eps(number, norm)


def check_eps(eps: float, norm: str | None = None) -> float:
    """Return ``eps`` if it is a budget: finite, at least 0, and at most 1 if the norm is ``linf``.

    Raises:
        InvalidSettingError: otherwise.
    """
    if not (math.isfinite(eps) and eps >= 0):
        raise InvalidSettingError(
            f"eps got {eps_text(eps)}; expected 0 or more, in units of the pixel range [0, 1] (8/255, not 8)"
        )
    if norm == "linf":
        check_length("eps got", eps)
    return float(eps)


def check_length(what: str, length: float) -> None:
    """Refuse a length in the linf norm that is longer than the pixel range.

    Args:
        what: the start of the message: ``eps got``, ``attack 'pgd' got alpha``.
        length: finite.

    Raises:
        InvalidSettingError: suggests k/255.
    """
    if length > 1:
        meant = f"{length:g}/255" if length <= 255 else "8/255"
        raise InvalidSettingError(
            f"{what} {length:g}; expected at most 1 in linf, in units of the pixel range [0, 1]"
            f" (for {meant.partition('/')[0]} of 255 levels, write {meant})"
        )


def parse_eps_list(eps: Budgets, norm: str | None = None) -> tuple[float, ...]:
    """Budgets from ``"0,0.01,8/255"``, a number, or several of either, in the given order.

    Args:
        eps: numbers may be of any type that :func:`parse_eps` accepts.
        norm: the norm of the budgets; None if it is not known yet.

    Raises:
        InvalidSettingError: if there is no budget or one is invalid.

    >>> parse_eps_list("0.5, 1/4")
    (0.5, 0.25)
    """
    if isinstance(eps, str):
        values: list[str | Number] = list(split_items(eps))
    elif _is_one(eps) or not isinstance(eps, Iterable):
        values = [cast("Number", eps)]
    else:
        values = list(eps)
    budgets = tuple(parse_eps(value, norm) for value in values)
    if not budgets:
        raise InvalidSettingError(
            "eps got an empty list; expected at least one number, such as 0.0,0.01,0.03"
        )
    return budgets


def is_one_budget(eps: Budgets) -> bool:
    """True for one budget, a number or a text without a comma; False for several.

    >>> is_one_budget("8/255"), is_one_budget(0.03), is_one_budget([0.03])
    (True, True, False)
    """
    if isinstance(eps, str):
        return "," not in eps
    return _is_one(eps) or not isinstance(eps, Iterable)


def _is_one(value: object) -> bool:
    """True for a tensor or array without a dimension."""
    return isinstance(value, Tensor | np.ndarray) and value.ndim == 0


def _as_float(value: object) -> float:
    """The intended number: 0.03 or 8/255 for a float32, not the float64 next to it."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise TypeError
        number = value.item()
        value = np.float32(number) if value.is_floating_point() and value.dtype != torch.float64 else number
    elif isinstance(value, np.ndarray):
        value = value[()]
    if isinstance(value, np.floating):
        return _as_levels(value) or float(np.format_float_scientific(value))
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError
    return float(value)


def _as_levels(value: np.floating[Any]) -> float | None:
    """k/255 in float64, if the value is that in another precision; otherwise None, as for short decimals."""
    if not 0 < value <= 1:
        return None
    levels = round(255 * float(value)) / 255
    exact = "/" in number_text(levels) and value.dtype.itemsize >= 4 and type(value)(levels) == value
    return levels if exact else None


@dataclass(frozen=True)
class ThreatModel:
    """The limits of an attacker: each image may change by at most ``eps`` in ``norm``.

    Attributes:
        norm: ``linf`` or ``l2``.
        eps: the budget in units of the pixel range [0, 1], 0 or more; at most 1 for ``linf``.

    Raises:
        InvalidSettingError: for an unknown norm or an impossible eps, such as 8 instead of 8/255 in linf.

    >>> threat = ThreatModel("linf", 8 / 255)
    >>> ball = threat.ball(torch.full((1, 3, 2, 2), 0.5))
    >>> ball.contains(torch.full((1, 3, 2, 2), 0.6))
    tensor([False])
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise InvalidSettingError(f"norm got '{self.norm}'; expected {' or '.join(NORMS)}")
        check_eps(self.eps, self.norm)

    def ball(self, images: Tensor) -> Ball:
        """The ball around each of ``images``, float32 ``(N, C, H, W)`` in [0, 1]."""
        return LinfBall(images, self.eps) if self.norm == "linf" else L2Ball(images, self.eps)


class Ball(ABC):
    """The adversarial images allowed around a batch: the eps ball intersected with the pixel box.

    Attributes:
        images: the clean images, float32 ``(N, C, H, W)`` in [0, 1].
        eps: the radius, in units of the pixel range.

    >>> ball = ThreatModel("linf", 0.25).ball(torch.full((1, 1, 1, 2), 0.5))
    >>> ball.project(torch.tensor([[[[0.0, 0.6]]]]))
    tensor([[[[0.2500, 0.6000]]]])
    """

    norm: ClassVar[str]
    """``linf`` or ``l2``."""

    def __init__(self, images: Tensor, eps: float) -> None:
        self.images = images
        self.eps = eps

    @abstractmethod
    def project(self, candidates: Tensor) -> Tensor:
        """The candidates moved inside, float32 of the same shape; candidates inside stay bit for bit."""

    @abstractmethod
    def random(self, generator: torch.Generator) -> Tensor:
        """Images drawn uniformly from the eps ball, then clipped to the pixel box."""

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest direction of length 1 in this norm; zero for a gradient of zero."""

    @abstractmethod
    def distance(self, candidates: Tensor) -> Tensor:
        """The distance of each candidate from its image, float64 ``(N,)``."""

    @property
    @abstractmethod
    def radius(self) -> float:
        """The largest distance that counts as inside, float rounding included."""

    def select(self, rows: Tensor) -> Self:
        """The balls of the given rows."""
        return type(self)(self.images.index_select(0, rows), self.eps)

    def join(self, other: Self) -> Self:
        """These balls, followed by those of another of the same radius."""
        return type(self)(torch.cat([self.images, other.images]), self.eps)

    def contains(self, candidates: Tensor) -> Tensor:
        """True for candidates inside the ball and the pixel box, bool ``(N,)``; NaN is outside."""
        flat = candidates.flatten(1)
        in_box = ((flat >= 0) & (flat <= 1)).all(dim=1)
        return in_box & (self.distance(candidates) <= self.radius)


class LinfBall(Ball):
    """The linf ball: every value may change by eps."""

    norm = "linf"

    def __init__(self, images: Tensor, eps: float) -> None:
        super().__init__(images, eps)
        levels = _levels(images)
        if levels is None:
            self._lower, self._upper = _linf_bounds(images, eps)
        else:
            self._lower, self._upper = (
                bounds.index_select(0, levels).view_as(images) for bounds in _linf_bounds(_GRID, eps)
            )

    def project(self, candidates: Tensor) -> Tensor:
        return torch.clamp(candidates, self._lower, self._upper)

    def select(self, rows: Tensor) -> Self:
        # The bounds are copied: computing them again takes float64 arithmetic for every value.
        chosen = copy(self)
        for name in ("images", "_lower", "_upper"):
            setattr(chosen, name, getattr(self, name).index_select(0, rows))
        return chosen

    def join(self, other: Self) -> Self:
        joined = copy(self)
        for name in ("images", "_lower", "_upper"):
            setattr(joined, name, torch.cat([getattr(self, name), getattr(other, name)]))
        return joined

    def random(self, generator: torch.Generator) -> Tensor:
        noise = torch.rand(
            self.images.shape, generator=generator, device=self.images.device, dtype=torch.float32
        )
        return self.project(self.images + (2 * noise - 1) * self.eps)

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def distance(self, candidates: Tensor) -> Tensor:
        return (candidates.double() - self.images.double()).abs().flatten(1).amax(dim=1)

    @property
    def radius(self) -> float:
        return self.eps


class L2Ball(Ball):
    """The l2 ball: the change, as one vector over all values of an image, may be eps long."""

    norm = "l2"

    def project(self, candidates: Tensor) -> Tensor:
        # The box first: scaling afterwards keeps a change inside it and uses the ball's whole radius.
        boxed = candidates.clamp(0, 1)
        change = boxed - self.images
        length = _norm(change)
        outside = length > self._limit
        # An early return spares a CPU the rest; on other devices the check would take longer.
        may_look = not is_asynchronous(boxed.device)
        if may_look and not bool(outside.any()):
            return boxed
        scale = self.eps / length
        for _ in range(2):
            scaled = self.images + change * scale.float()
            reached = _norm(scaled - self.images)
            too_far = outside & (reached > self._limit)
            if may_look and not bool(too_far.any()):
                return torch.where(outside, scaled, boxed)
            # Rounding to float32 led outside again: aim shorter by that much, and a little more.
            shorter = (self.eps - min(_ROUNDING, self.eps / 8)) / reached
            scale = torch.where(too_far, scale * shorter, scale)
        # For a budget so small that rounding dominates, let rounding only shorten a change.
        exact = (boxed.double() - self.images.double()) * scale
        shortened = _rounded_inside(self.images, self.images.double() + exact, exact.abs())
        return torch.where(too_far, shortened, torch.where(outside, scaled, boxed))

    def random(self, generator: torch.Generator) -> Tensor:
        shape, device = self.images.shape, self.images.device
        normal = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        uniform = torch.rand(
            (len(self.images), 1, 1, 1), generator=generator, device=device, dtype=torch.float32
        )
        dimensions = self.images[0].numel()
        return self.project(self.images + self.direction(normal) * self.eps * uniform ** (1 / dimensions))

    def direction(self, gradient: Tensor) -> Tensor:
        # First divide by the largest value, so that the squares of tiny gradients do not vanish.
        largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
        scaled = gradient / torch.where(largest > 0, largest, 1.0)
        length = scaled.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return scaled / torch.where(length > 0, length, 1.0)

    def distance(self, candidates: Tensor) -> Tensor:
        return _norm(candidates.double() - self.images.double()).flatten()

    @property
    def _limit(self) -> float:
        """The tolerance of a projection: half, because it measures a float32 difference."""
        return self.eps * (1 + L2_TOLERANCE / 2)

    @property
    def radius(self) -> float:
        return self.eps * (1 + L2_TOLERANCE)


def _norm(change: Tensor) -> Tensor:
    """Euclidean length of each image's change, float64 ``(N, 1, 1, 1)``."""
    length: Tensor = torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True, dtype=torch.float64)
    return length


def _linf_bounds(images: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The smallest and the largest float32 that each value may take."""
    exact = images.double()
    lower = _rounded_inside(images, exact - eps, eps).clamp_(min=0)
    return lower, _rounded_inside(images, exact + eps, eps).clamp_(max=1)


def _levels(images: Tensor) -> Tensor | None:
    """For 8-bit images on a CPU, each value's position in :data:`_GRID`, int32 and flat; otherwise None.

    Looking bounds up takes a fifth of the time of computing each in float64. On a GPU, the check would wait
    for the device.
    """
    if images.device.type != "cpu" or images.dtype != torch.float32 or images.numel() < len(_GRID):
        return None
    if not images.is_contiguous():
        return None
    levels = (images * 255).round_()
    least, most = levels.aminmax()
    on_grid = least >= 0 and most <= 255 and torch.equal(levels / 255, images)
    return levels.int().flatten() if on_grid else None


def _rounded_inside(images: Tensor, exact: Tensor, reach: Tensor | float) -> Tensor:
    """``exact`` (float64) in float32; if rounding exceeds ``reach``, the next number towards the image."""
    rounded = exact.float()
    too_far = (rounded.double() - images.double()).abs() > reach
    return torch.where(too_far, torch.nextafter(rounded, images), rounded)
