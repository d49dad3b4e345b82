"""Learning rates: the factor of a step depends only on the step, so that resuming needs no state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Schedule = Callable[[int, int, float], float]


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """A linear rise, then a cosine fall to zero.

    Smith and Topin, 2018, "Super-Convergence", arXiv 1708.07120.

    Args:
        step: the step, from 0.
        steps: number of steps.
        warmup: fraction of the steps in which the rate rises.
    """
    rise = max(1.0, warmup * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))


def cosine(step: int, steps: int, warmup: float) -> float:
    """A cosine fall to zero from the first step (Loshchilov and Hutter, 2017, arXiv 1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def stepwise(step: int, steps: int, warmup: float) -> float:
    """A tenth after half of the steps, a hundredth after three quarters, as in papers on robustness."""
    return 1.0 if 2 * step < steps else 0.1 if 4 * step < 3 * steps else 0.01


def constant(step: int, steps: int, warmup: float) -> float:
    """The same rate at every step."""
    return 1.0


SCHEDULES: Mapping[str, Schedule] = {
    "one-cycle": one_cycle,
    "cosine": cosine,
    "step": stepwise,
    "constant": constant,
}
