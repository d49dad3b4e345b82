"""Trust checks of attacks: did each succeed as often as the probe, and as the others of its table?

Each check returns its reason, or None if it finds nothing. It compares results per image; ``probed`` is the
result of the probe. A reason must not appear by chance, so checks that count images use an exact test. They
also require an effect large enough to change the figure, not just a significant difference.

The checks follow Carlini et al., 2019, "On Evaluating Adversarial Robustness", arXiv 1902.06705; and, for
single-step training, Wong, Rice and Kolter, 2020, "Fast is better than free", arXiv 2001.03994.
"""

from __future__ import annotations

from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.trust.comparisons import TRICKLE, more_than, outdoes
from robustbench_tin.benchmarks.trust.probe import Hits, ProbeResult
from robustbench_tin.benchmarks.trust.trials import PROBE_STEPS

# Fraction of the images that a sound attack may still find in the last tenth of its budget, because images
# near the border of the ball flip last. On small networks it was up to 9 of 160, and five times the steps
# then found no further images.
_LATE = 0.05
# How many successes an attack may lack beside a short PGD: as a fraction of all images, and of PGD's
# successes.
_MUCH, _THIRD = 0.1, 1 / 3
# How many more successes another attack of the same table needs to refute this one: number of images,
# fraction of all images, and fraction of the images that this attack leaves right.
_REFUTING, _REFUTED_OF_ALL, _REFUTED_OF_LEFT = 3, 0.05, 0.4
# Number of successes of noise that is needed for a conclusion; the factor by which an attack must exceed it;
# the fraction of right images below which an attack has too few images left to exceed it.
_NOISE_BROKE, _BESIDE_NOISE, _SATURATED = 5, 1.25, 0.1


def single_step_blind(
    right: Hits, fgsm: Hits, strong: Hits, eps: float, *, single_step_training: bool
) -> Reason | None:
    """Check whether FGSM fails on most images and an iterative attack succeeds on many of them.

    After single-step training this is catastrophic overfitting: FGSM leaves half of the right images, and the
    iterative attack succeeds on half of those. An undefended network also resists one large step, but not on
    nearly all images. So without such training the limits are nine in ten, and a third of those.

    Args:
        right: images that are right when clean, bool ``(N,)``.
        fgsm: images that FGSM leaves right, bool ``(N,)``.
        strong: images that an iterative attack leaves right, bool ``(N,)``.
        eps: budget of both attacks in units of the pixel range.
        single_step_training: whether the cell was trained on images of a single gradient step.
    """
    kept = right & fgsm
    least, share = (0.5, 0.5) if single_step_training else (0.9, _THIRD)
    broken = int((kept & ~strong).sum())
    if kept.sum() < least * right.sum() or not more_than(broken, int(kept.sum()), share):
        return None
    code = TrustCode.catastrophic_overfitting if single_step_training else TrustCode.single_step_blind
    return Reason.of(code, successes=broken, images=int(kept.sum()), eps=eps)


def weaker_than_probe(left: Hits, probed: ProbeResult, *, iterative: bool) -> Reason | None:
    """Check whether the probe's short PGD succeeds on many images on which the attack fails.

    Many means more than a tenth of all images, or more than a third of the PGD's successes.

    Args:
        left: images that the attack leaves right at the probe's budget, bool ``(N,)``.
        probed: result of the probe.
        iterative: whether the attack takes several gradient steps. A single step or a black-box search may be
            weaker; it is reported only if it has no success although PGD succeeds on half of the images.
    """
    if probed.pgd is None:
        return None
    mine = left[probed.numbers[: len(probed.pgd)]]
    right = probed.right[: len(mine)]
    broken = int((right & ~probed.pgd).sum())
    gained = int((right & mine & ~probed.pgd).sum())
    net = max(0, gained - int((right & probed.pgd & ~mine).sum()))
    if iterative:
        weaker = more_than(net, len(mine), _MUCH) or more_than(net, broken, _THIRD)
    else:
        nothing = not bool((right & ~mine).any())
        weaker = nothing and more_than(broken, int(right.sum()), 0.5)
    if not weaker:
        return None
    return Reason.of(
        TrustCode.weaker_than_probe, steps=PROBE_STEPS, gained=gained, images=len(mine), eps=probed.eps
    )


def asked_nothing(forward_passes: int, backward_passes: int, images: int) -> Reason | None:
    """Check whether an attack never queried the model.

    Args:
        forward_passes: forward passes of the measurement, summed over the images.
        backward_passes: backward passes of the measurement, summed over the images.
        images: number of measured images; verification takes one forward pass of each.
    """
    if backward_passes > 0 or forward_passes > images:
        return None
    return Reason.of(TrustCode.asked_nothing)


def black_box_beats(
    left: Hits, black_box: Hits, eps: float, name: str, *, transfer: bool = False
) -> Reason | None:
    """Check whether a black-box or transfer attack succeeds on images on which this attack fails.

    Args:
        left: images that the attack with gradients leaves right, bool ``(N,)``.
        black_box: images that the other attack leaves right, bool ``(N,)``.
        eps: budget of both attacks in units of the pixel range.
        name: name of the other attack.
        transfer: whether the other attack is a transfer from another cell; ``name`` then names the cell too.
    """
    broke = int((left & ~black_box).sum())
    if not more_than(broke, len(left), TRICKLE):
        return None
    code = TrustCode.transfer_beats if transfer else TrustCode.black_box_beats
    return Reason.of(code, name=name, successes=broke, images=len(left), eps=eps)


def weaker_than_one_step(left: Hits, fgsm: Hits, eps: float, name: str) -> Reason | None:
    """Check whether a single-step attack has more successes than an attack of many steps.

    Args:
        left: images that the attack of many steps leaves right, bool ``(N,)``.
        fgsm: images that the single step leaves right, bool ``(N,)``.
        eps: budget of both attacks in units of the pixel range.
        name: name of the single-step attack.
    """
    if not outdoes(fgsm, left):
        return None
    lost, won = int((left & ~fgsm).sum()), int((fgsm & ~left).sum())
    return Reason.of(TrustCode.weaker_than_one_step, name=name, lost=lost, won=won, eps=eps)


def rising(lower: Hits, higher: Hits, low: float, high: float) -> Reason | None:
    """Check whether accuracy rises although the budget grows.

    Args:
        lower: images that are right at the smaller budget, bool ``(N,)``.
        higher: images that are right at the larger budget, bool ``(N,)``.
        low: the smaller budget in units of the pixel range.
        high: the larger budget in units of the pixel range.
    """
    if not outdoes(lower, higher):
        return None
    before, after = (round(100 * float(hits.mean()), 1) for hits in (lower, higher))
    return Reason.of(TrustCode.rising, lower=before, low=low, higher=after, high=high)


def not_converged(late_successes: int | None, images: int) -> Reason | None:
    """Check whether an attack still had successes at the end of its budget.

    Args:
        late_successes: number of successes in the last tenth of the budget; None if it is not known.
        images: number of images.
    """
    if late_successes is None or not more_than(late_successes, images, _LATE):
        return None
    return Reason.of(TrustCode.not_converged, late_successes=late_successes, images=images)


def probe_not_converged(probed: ProbeResult) -> Reason | None:
    """Check whether the probe's PGD still had successes in its last step.

    A short attack with a fixed budget does not report late successes, and the probe is at least as long.
    """
    if probed.pgd is None or not more_than(probed.late_successes, len(probed.pgd), _LATE):
        return None
    return Reason.of(
        TrustCode.probe_not_converged,
        steps=PROBE_STEPS,
        late_successes=probed.late_successes,
        images=len(probed.pgd),
        eps=probed.eps,
    )


def unverified_successes(unverified: int, images: int) -> Reason | None:
    """Check whether the model rejects too many successes of the variant that the attack searched with.

    Args:
        unverified: number of images that only the variant misclassifies.
        images: number of images.
    """
    if not more_than(unverified, images, TRICKLE):
        return None
    return Reason.of(TrustCode.unverified_successes, unverified=unverified, images=images)


def refuted(left: Hits, other: Hits, eps: float, name: str, *, transfer: bool = False) -> Reason | None:
    """Check whether another attack leaves far fewer images right, so that this attack's accuracy is too high.

    Both attacks saw the same images, so only the size of the difference matters. Sound attacks differ by a
    few points, which is no reason: for example, PGD-10 53 % and AutoAttack 49 % of an adversarially trained
    network.

    Args:
        left: images that an iterative attack leaves right, bool ``(N,)``.
        other: images that the other attack leaves right, bool ``(N,)``.
        eps: budget of both attacks in units of the pixel range.
        name: name of the other attack.
        transfer: whether the other attack is a transfer from another cell; ``name`` then names the cell too.
    """
    mine, theirs, images = int(left.sum()), int(other.sum()), len(left)
    gain = mine - theirs  # the other attack's additional successes, net of the reverse
    if gain < _REFUTING or gain <= _REFUTED_OF_ALL * images or gain <= _REFUTED_OF_LEFT * mine:
        return None
    code = TrustCode.transfer_refutes if transfer else TrustCode.refuted
    return Reason.of(code, name=name, theirs=theirs, images=images, eps=eps, mine=mine)


def no_better_than_noise(
    left: Hits, noise_left: Hits, right: Hits, eps: float, name: str = "noise"
) -> Reason | None:
    """Check whether an attack with gradients has hardly more successes than random points of the ball.

    In d dimensions, a step along the gradient changes a margin about sqrt(d) times as much as noise of the
    same length. So a working attack has many times more successes, unless noise already succeeds on nearly
    all images. The check needs at least five successes of noise, and an attack that leaves more than a tenth
    of the right images.

    Args:
        left: images that an iterative attack leaves right, bool ``(N,)``.
        noise_left: images that noise leaves right, bool ``(N,)``.
        right: images that are right when clean, bool ``(N,)``.
        eps: budget of both attacks in units of the pixel range.
        name: name of the noise attack.
    """
    images = int(right.sum())
    broke, by_noise = int((right & ~left).sum()), int((right & ~noise_left).sum())
    if by_noise < _NOISE_BROKE or broke > _BESIDE_NOISE * by_noise or images - broke <= _SATURATED * images:
        return None
    return Reason.of(
        TrustCode.no_better_than_noise, name=name, by_noise=by_noise, images=images, eps=eps, successes=broke
    )
