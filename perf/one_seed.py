"""How often the gate is wrong about a re-training beside a baseline of one seed, by simulation.

``python perf/one_seed.py`` prints the tables of docs/explanation/gate-statistics.md: false alarms by the true
deviation between seeds, and power by the true drop, if seeds are assumed to deviate by 2 points.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from robustbench_tin.benchmarks.gate.rules import ASSUMED_SPREAD, LEVEL
from robustbench_tin.benchmarks.statistics.chances import holm
from robustbench_tin.benchmarks.statistics.paired import image_variance
from robustbench_tin.benchmarks.statistics.spread import Spread

MEASURES, IMAGES, CHECKS = 5, 400, 500


def main() -> None:
    print(f"{CHECKS} simulated checks of {MEASURES} measures and {IMAGES} images\n")
    print("| true deviation between seeds, points | checks that find something worse |\n|---:|---:|")
    for deviation in (0.0, 0.01, 0.02, 0.04, 0.06):
        print(f"| {100 * deviation:g} | {100 * shares_worse(deviation, 0.0)[0]:.1f} % |")
    print("\n| true drop of one measure, points | that drop is found |\n|---:|---:|")
    for drop in (0.05, 0.08, 0.1, 0.15):
        print(f"| {100 * drop:g} | {100 * shares_worse(ASSUMED_SPREAD, drop)[1]:.1f} % |")


def shares_worse(deviation: float, drop: float) -> tuple[float, float]:
    """The part of simulated checks in which a measure is worse beyond chance, and in which the last one is.

    Two trainings are right on an image with chances of their own; the accuracies of each deviate by
    ``deviation``, half of it in all measures alike. The second one's last measure loses ``drop``.
    """
    random = np.random.default_rng(3)
    found = [_found(random, deviation, drop) for _ in range(CHECKS)]
    return float(np.mean([each.any() for each in found])), float(np.mean([each[-1] for each in found]))


def _found(random: np.random.Generator, deviation: float, drop: float) -> np.ndarray:
    """Which measures of one check are worse beyond chance."""
    ease = random.beta(0.5, 0.5, IMAGES)  # both trainings share it
    rates = np.linspace(0.8, 0.3, MEASURES) + random.normal(0, deviation / math.sqrt(2), (2, 1))
    rates = rates + random.normal(0, deviation / math.sqrt(2), (2, MEASURES))
    rates[1, -1] -= drop
    # On a fifth of the images each training decides by itself.
    own = random.uniform(size=(2, MEASURES, IMAGES))
    thresholds = stats.beta.isf(np.clip(rates, 0.001, 0.999), 0.5, 0.5)
    hits = np.where(own < 0.2, own / 0.2 < rates[..., None], ease > thresholds[..., None])
    spreads = [
        Spread(
            (int(before.sum()),),
            (int(now.sum()),),
            IMAGES,
            assumed=ASSUMED_SPREAD,
            image_variance=image_variance(before, now[None]),
        )
        for before, now in zip(*hits, strict=True)
    ]
    return np.array(holm([spread.chances().of_drop for spread in spreads])) <= LEVEL


if __name__ == "__main__":
    main()
