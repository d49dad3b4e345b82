"""A figure of a table: a text with parts, some of which a narrow terminal drops."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Self

from robustbench_tin.benchmarks.codes.verdict import Trust

DOUBTED, UNCHECKED, MISSING = "!", "?", "–"
MARKS = {Trust.ok: "", Trust.unchecked: UNCHECKED, Trust.doubted: DOUBTED}


class Standing(StrEnum):
    """The rank of a figure among those that it is compared with."""

    none = ""
    best = "best"
    tie = "tie"


class Figure(str):
    """The full text of a figure, with access to its parts.

    Attributes:
        number: the part that is always shown: ``32.7``, or ``failed`` in its place.
        value: the number in percent; None without one.
        mark: ``!``, ``?`` or nothing, shown after the number.
        deviation: standard deviation over seeds in points; None for one seed.
        seeds: ``(2 of 3 seeds)`` if some have no figure, else empty.
        lost: points lost to the attack; negative if gained; None: no clean figure to compare with.
        interval: its ends in percent; None: not shown.
        standing: the best of its kind, or not significantly different from it; renderers show it by a style.
    """

    number: str
    value: float | None
    mark: str
    deviation: float | None
    seeds: str
    lost: float | None
    interval: tuple[float, float] | None
    standing: Standing

    def __new__(
        cls,
        number: str,
        *,
        value: float | None = None,
        mark: str = "",
        deviation: float | None = None,
        seeds: str = "",
        lost: float | None = None,
        interval: tuple[float, float] | None = None,
        standing: Standing = Standing.none,
    ) -> Self:
        """Join these parts into a text; the arguments are the attributes."""
        parts: dict[str, Any] = {
            "value": value,
            "mark": mark,
            "deviation": deviation,
            "seeds": seeds,
            "lost": lost,
            "interval": interval,
        }
        text = super().__new__(cls, " ".join(cls._texts(number, **parts)))
        text.__dict__.update(parts, number=number, standing=standing)
        return text

    @property
    def parts(self) -> list[str]:
        """The text in parts: the number first, each part with its mark."""
        known = {name: value for name, value in self.__dict__.items() if name != "standing"}
        return list(self._texts(**known))

    def standing_as(self, standing: Standing) -> Figure:
        """The same figure with another standing."""
        return Figure(**{**self.__dict__, "standing": standing})

    def without(self, *, change: bool = False, interval: bool = False) -> Figure:
        """The same figure without some of its parts."""
        known = dict(self.__dict__)
        known |= {"lost": None} if change else {}
        known |= {"interval": None} if interval else {}
        return Figure(**known)

    @staticmethod
    def _texts(
        number: str,
        value: float | None,
        mark: str,
        deviation: float | None,
        seeds: str,
        lost: float | None,
        interval: tuple[float, float] | None,
    ) -> Sequence[str]:
        texts = [number + mark]
        texts += [] if deviation is None else [f"± {deviation:.1f}"]
        texts += [seeds] if seeds else []
        texts += [] if lost is None else [f"▼{lost:.1f}" if lost >= 0 else f"▲{-lost:.1f}"]
        texts += [] if interval is None else [f"[{interval[0]:.1f}, {interval[1]:.1f}]"]
        return texts


def with_change(figure: str, drop: float | None) -> str:
    """A figure followed by the points that it lost or gained; unchanged if ``drop`` is None."""
    return figure if drop is None else Figure(figure, lost=drop)
