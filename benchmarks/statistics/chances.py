"""p-values of one difference, and Holm's correction over several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SIGNIFICANT = 0.05
"""A difference is significant if its corrected p-value is at most this."""


@dataclass(frozen=True)
class Chances:
    """The probabilities that chance alone makes a difference at least as large as the observed one.

    Attributes:
        of_drop: one-sided p-value of the hypothesis "not worse", in [0, 1].
        of_rise: one-sided p-value of the hypothesis "not better", in [0, 1].
    """

    of_drop: float
    of_rise: float

    @property
    def of_difference(self) -> float:
        """Two-sided p-value: twice the smaller one, at most 1."""
        return min(1.0, 2 * min(self.of_drop, self.of_rise))


def holm(chances: Sequence[float]) -> list[float]:
    """Correct p-values so that at most one table in ``1 / level`` has a false alarm.

    The correction is valid for any dependence between the tests (Holm, 1979, "A simple sequentially rejective
    multiple test procedure", Scandinavian Journal of Statistics 6).

    Args:
        chances: p-values in [0, 1], in any order.

    Returns:
        The corrected p-values in the same order, each in [0, 1].

    >>> holm([0.25, 0.0625, 0.125])
    [0.25, 0.1875, 0.25]
    """
    corrected = [0.0] * len(chances)
    reached = 0.0
    order = sorted(range(len(chances)), key=lambda index: chances[index])
    for rank, index in enumerate(order):
        reached = max(reached, min(1.0, (len(chances) - rank) * chances[index]))
        corrected[index] = reached
    return corrected
