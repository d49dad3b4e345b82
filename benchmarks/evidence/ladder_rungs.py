"""The rung of a ladder that made each adversarial image, and the images that it was attacked with.

With ``--curve`` an image that is adversarial at one eps counts as such at each larger one. Its adversarial
image is that of the rung at which it first succeeded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_tin.benchmarks.measurement.curve import sampled

Images = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rung:
    """One rung of a ladder.

    Attributes:
        eps: its budget in units of the pixel range.
        attacked: images that it attacked, bool ``(N,)``; None: all.
        made: those whose adversarial image is its own: its first successes; on the last rung survivors, too.
    """

    eps: float
    attacked: Images | None
    made: Images


def rungs_up_to(
    eps: float,
    ladder: Sequence[float],
    right: Images,
    results: Mapping[float, Images],
    *,
    seed: int,
    attacks_all: bool,
) -> Iterator[Rung]:
    """The rungs that a measurement stands on, the smallest first.

    Args:
        eps: the budget of the measurement.
        ladder: all budgets of the run, ascending.
        right: images that are right when clean, bool ``(N,)``.
        results: images that are right at each budget, likewise; failed budgets are left out.
        seed: of the measurement.
        attacks_all: whether each rung attacks all images, because they share their gradients.
    """
    sample = right & sampled(len(right), len(ladder), seed)
    left = right
    for value in ladder[: ladder.index(eps) + 1]:
        if value in results:
            after = results[value]
            attacked = None if attacks_all else left | sample
            yield Rung(value, attacked, left if value == eps else left & ~after)
            left = after
