"""How many images or seeds it takes to see a drop, and what those at hand can see."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

# A gate that sees a drop this often is said to see it.
POWER = 0.8
# Nobody measures more images than this, so no answer above it is looked for.
_MOST_IMAGES = 10**7
_MOST_SEEDS = 1000


# The search for a number of images asks for the same ones again and again, in one check and in the next.
@lru_cache(maxsize=4096)
def power_of_images(images: int, drop: float, changed: float, level: float) -> float:
    """How often McNemar's exact test finds a drop beyond chance; exact, not by a normal approximation.

    Args:
        images: measured.
        drop: the true one, a fraction of all images above 0.
        changed: part of all images whose outcome changes, either way; at least ``drop``.
        level: one-sided, of the test.
    """
    from scipy.stats import binom

    changed = min(1.0, max(changed, drop))
    middle, width = images * changed, 10 * math.sqrt(images * changed * (1 - changed)) + 10
    counts = np.arange(max(0, int(middle - width)), min(images, int(middle + width)) + 1)
    # The fewest losses among so many changed images that chance makes too rarely.
    fewest = binom.isf(level, counts, 0.5)
    lost = (1 + drop / changed) / 2
    return float((binom.pmf(counts, images, changed) * binom.sf(fewest, counts, lost)).sum())


def images_needed(drop: float, changed: float, level: float, power: float = POWER) -> int | None:
    """The images that see a drop with this power; None where more than 10^7 would be needed.

    The arguments are those of :func:`power_of_images`. An exact test's power is a little ragged in the
    number of images; this is where it first stays above within a few per cent.
    """
    high = 8
    while power_of_images(high, drop, changed, level) < power:
        high *= 2
        if high > _MOST_IMAGES:
            return None
    low = high // 2
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        if power_of_images(middle, drop, changed, level) < power:
            low = middle
        else:
            high = middle
    return high


def power_of_seeds(before: int, now: int, drop: float, deviation: float, level: float) -> float:
    """How often the prediction interval finds a drop beyond chance.

    Args:
        before: seeds of the baseline.
        now: trainings that are checked.
        drop: the true one, a fraction.
        deviation: standard deviation between trainings, a fraction above 0.
        level: one-sided, of the test.
    """
    from scipy.stats import nct, t

    freedom = before + now - 2
    if freedom < 1:
        return 0.0
    shift = drop / (deviation * math.sqrt(1 / before + 1 / now))
    return float(nct.sf(t.isf(level, freedom), freedom, shift))


def power_of_error(drop: float, error: float, level: float) -> float:
    """How often a normal test finds a drop beyond chance.

    Args:
        drop: the true one, a fraction.
        error: standard error of the measured drop, a fraction above 0.
        level: one-sided, of the test.
    """
    from scipy.stats import norm

    return float(norm.sf(norm.isf(level) - drop / error))


def drop_seen(error: float, level: float, power: float = POWER) -> float:
    """The smallest drop that a normal test finds with this power; see :func:`power_of_error`."""
    from scipy.stats import norm

    return error * float(norm.isf(level) - norm.isf(power))


def seeds_needed(drop: float, deviation: float, level: float, power: float = POWER) -> int | None:
    """The baseline's seeds with which one re-training that lost so much is found; None where none suffice."""
    # A single training keeps its own deviation however many the baseline has.
    if power_of_seeds(_MOST_SEEDS, 1, drop, deviation, level) < power:
        return None
    return next(
        seeds
        for seeds in range(2, _MOST_SEEDS + 1)
        if power_of_seeds(seeds, 1, drop, deviation, level) >= power
    )


def visible_drop(before: int, now: int, deviation: float, level: float, power: float = POWER) -> float | None:
    """The smallest drop that the prediction interval finds with this power; None where none is.

    The arguments are those of :func:`power_of_seeds`.
    """
    if power_of_seeds(before, now, 1.0, deviation, level) < power:
        return None
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        if power_of_seeds(before, now, middle, deviation, level) < power:
            low = middle
        else:
            high = middle
    return high
