"""The rung of a ladder that made each adversarial image, and the images that each rung attacked.

With ``--curve`` an image that is adversarial at one eps counts as adversarial at each larger one. Its
adversarial image comes from the rung at which the attack first succeeded.
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
        attacked: the attacked images, bool ``(N,)``; None: all.
        made: the images whose adversarial image this rung made: its first successes; on the last rung
            survivors, too.
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
    """The rungs below and at a measurement's budget, the smallest first.

    Args:
        eps: the budget of the measurement.
        ladder: all budgets of the run, ascending.
        right: whether each image is correct when clean, bool ``(N,)``.
        results: whether each image is correct, by budget, bool ``(N,)``; failed budgets are left out.
        seed: seed of the measurement.
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
