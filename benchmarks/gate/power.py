"""Statistical power of the gate: images and seeds that detect a drop, and the smallest detectable drop."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

# Probability of detecting a drop from which on the gate is said to detect it.
POWER = 0.8
# Nobody measures more images or trains more seeds than this, so larger numbers are not searched.
_MOST_IMAGES = 10**7
_MOST_SEEDS = 1000


# The search for a number of images asks for the same ones again and again, in one check and in the next.
@lru_cache(maxsize=4096)
def power_of_images(images: int, drop: float, changed: float, level: float) -> float:
    """The power of McNemar's exact test, computed exactly, without a normal approximation.

    Args:
        images: number of measured images.
        drop: the true drop of accuracy, a fraction above 0.
        changed: fraction of the images whose result changes in either direction; at least ``drop``.
        level: one-sided level of the test, in (0, 1).

    Returns:
        The probability that the test detects the drop, in [0, 1].
    """
    from scipy.stats import binom

    changed = min(1.0, max(changed, drop))
    middle, width = images * changed, 10 * math.sqrt(images * changed * (1 - changed)) + 10
    counts = np.arange(max(0, int(middle - width)), min(images, int(middle + width)) + 1)
    # For each number of changed images, the largest number of losses that is not significant.
    fewest = binom.isf(level, counts, 0.5)
    lost = (1 + drop / changed) / 2
    return float((binom.pmf(counts, images, changed) * binom.sf(fewest, counts, lost)).sum())


def images_needed(drop: float, changed: float, level: float, power: float = POWER) -> int | None:
    """The number of images that detects a drop with this power.

    The power of an exact test is not monotonic in the number of images, so the number is accurate to a few
    per cent.

    Args:
        drop: as in :func:`power_of_images`.
        changed: as in :func:`power_of_images`.
        level: as in :func:`power_of_images`.
        power: required power, in (0, 1).

    Returns:
        None if more than 10^7 images are needed.
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
    """The power of Student's t over seeds; with one checked training it is a prediction interval.

    Args:
        before: number of the baseline's seeds.
        now: number of checked trainings.
        drop: the true drop of accuracy, a fraction.
        deviation: standard deviation between trainings, a fraction above 0.
        level: one-sided level of the test, in (0, 1).

    Returns:
        The probability that the test detects the drop, in [0, 1].
    """
    from scipy.stats import nct, t

    freedom = before + now - 2
    if freedom < 1:
        return 0.0
    shift = drop / (deviation * math.sqrt(1 / before + 1 / now))
    return float(nct.sf(t.isf(level, freedom), freedom, shift))


def power_of_error(drop: float, error: float, level: float) -> float:
    """The power of a normal test.

    Args:
        drop: the true drop of accuracy, a fraction.
        error: standard error of the measured drop, a fraction above 0.
        level: one-sided level of the test, in (0, 1).

    Returns:
        The probability that the test detects the drop, in [0, 1].
    """
    from scipy.stats import norm

    return float(norm.sf(norm.isf(level) - drop / error))


def drop_seen(error: float, level: float, power: float = POWER) -> float:
    """The smallest drop, a fraction, that a normal test detects with this power.

    Args:
        error: standard error of the measured drop, a fraction above 0.
        level: one-sided level of the test, in (0, 1).
        power: required power, in (0, 1).
    """
    from scipy.stats import norm

    return error * float(norm.isf(level) - norm.isf(power))


def seeds_needed(drop: float, deviation: float, level: float, power: float = POWER) -> int | None:
    """The number of baseline seeds with which one re-training with this drop is detected.

    Args:
        drop: the true drop of accuracy, a fraction.
        deviation: standard deviation between trainings, a fraction above 0.
        level: one-sided level of the test, in (0, 1).
        power: required power, in (0, 1).

    Returns:
        None if no number of seeds is enough.
    """
    # The deviation of the single re-training remains, for any number of baseline seeds.
    if power_of_seeds(_MOST_SEEDS, 1, drop, deviation, level) < power:
        return None
    return next(
        seeds
        for seeds in range(2, _MOST_SEEDS + 1)
        if power_of_seeds(seeds, 1, drop, deviation, level) >= power
    )


def visible_drop(before: int, now: int, deviation: float, level: float, power: float = POWER) -> float | None:
    """The smallest drop, a fraction, that Student's t detects with this power; None if it detects none.

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
