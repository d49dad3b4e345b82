"""Comparisons of counts of images that several trust checks share."""

from __future__ import annotations

from robustbench_tin.benchmarks.trust.probe import Hits, ProbeResult

LEVEL = 0.001
# Fraction of the images on which sound attacks may differ.
TRICKLE = 0.01
# Fraction of the right images that may lack a gradient, because a network may be very confident on a few.
FEW = 0.05
# Number of successes of a PGD on margins, or of these missed by an attack, that is needed for a conclusion;
# and the fraction of the successes that an equally strong attack may miss.
TELLING, _BESIDE_PROBE = 5, 0.1


def more_than(count: int, trials: int, share: float) -> bool:
    """Whether a count exceeds a share of the trials beyond chance, by a one-sided exact binomial test.

    Args:
        count: number of successes, 0 to ``trials``.
        trials: number of trials; with 0 the answer is False.
        share: the success probability to exceed, in [0, 1].

    >>> more_than(3, 200, 0.01), more_than(12, 200, 0.01)
    (False, True)
    """
    from scipy.stats import binomtest

    return trials > 0 and bool(binomtest(count, trials, share, alternative="greater").pvalue < LEVEL)


def outdoes(one: Hits, other: Hits) -> bool:
    """Whether one attack leaves fewer images right than another beyond chance, by McNemar's exact test.

    Args:
        one: images that the first attack leaves right, bool ``(N,)``.
        other: images that the second attack leaves right, bool ``(N,)``.
    """
    gained, lost = int((other & ~one).sum()), int((one & ~other).sum())
    return more_than(gained, gained + lost, 0.5)


def beside_probe(left: Hits, probed: ProbeResult) -> tuple[int, int] | None:
    """Count the successes of an attack and of the probe's PGD on margins, on the same images.

    The gradients of margins do not depend on the scale of the logits.

    Args:
        left: images that the attack leaves right at the probe's budget, bool ``(N,)``.
        probed: result of the probe.

    Returns:
        The numbers of successes of the attack and of the PGD. None if the PGD allows no conclusion: it did
        not run, its gradients were unusable, or it had too few successes.
    """
    near = probed.gradients.near
    if probed.pgd is None or near is None or near.usable.mean() < 1 - FEW:
        return None
    mine = left[probed.numbers[: len(probed.pgd)]]
    right = probed.right[: len(mine)]
    broken = int((right & ~probed.pgd).sum())
    return (int((right & ~mine).sum()), broken) if broken >= TELLING else None


def keeps_up(left: Hits, probed: ProbeResult) -> bool:
    """Whether an attack has about as many successes as the probe's PGD on margins.

    Large logits make the gradient of the cross-entropy vanish, but they do not affect attacks on margins.

    Args:
        left: images that the attack leaves right at the probe's budget, bool ``(N,)``.
        probed: result of the probe.
    """
    beside = beside_probe(left, probed)
    return beside is not None and beside[0] >= (1 - _BESIDE_PROBE) * beside[1]
