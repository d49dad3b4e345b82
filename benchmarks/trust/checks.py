"""The trust checks: each function tests for one reason why a figure may be unreliable.

A reason must not appear by chance. So checks that count images use an exact test at :data:`LEVEL`, and they
require an effect large enough to change the figure, not just a significant difference.

Each check returns its reason, or None if it finds nothing. ``probed`` is the result of the probe.

The checks follow Athalye, Carlini and Wagner, 2018, "Obfuscated Gradients Give a False Sense of Security",
arXiv 1802.00420; Carlini et al., 2019, "On Evaluating Adversarial Robustness", arXiv 1902.06705; and, for
single-step training, Wong, Rice and Kolter, 2020, "Fast is better than free", arXiv 2001.03994.
"""

from __future__ import annotations

import math

from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.trust.probe import Hits, ProbeResult
from robustbench_tin.benchmarks.trust.slopes import KINDS
from robustbench_tin.benchmarks.trust.trials import PROBE_QUERIES, PROBE_STEPS

LEVEL = 0.001
# Fraction of the images on which sound attacks may differ.
_TRICKLE = 0.01
# Fraction of the images that a sound attack may still find in the last tenth of its budget, because images
# near the border of the ball flip last. On small networks it was up to 9 of 160, and five times the steps
# then found no further images.
_LATE = 0.05
# Fraction of the right images that may lack a gradient, because a network may be very confident on a few.
_FEW = 0.05
# Typical difference of the two highest logits below which cross-entropy hardly separates the rivals (it was 1
# to 3.6 in eight honest networks). An attack may then miss this fraction of the successes of a PGD on
# margins.
_FAINT, _BESIDE_MARGINS = 0.2, 0.2
# Allowed error of the gradient on an image; fraction of images that may exceed it; allowed error along one
# kind of direction.
_WRONG, _WRONG_PART, _OFF = 0.5, 0.03, 0.25
# The same fraction for logits with 8 or 11 bits, which need a longer distance, over which gradients change.
_WRONG_PART_OF_COARSE = 0.3
# Fraction of the predicted change that must happen over an attack step; it is required only if this fraction
# of the images survives.
_SHATTERED, _SURVIVE = 0.15, 0.1
# Allowed error of the gradients between two images. It was 0.15 at most for honest networks, and 0.26 for the
# substitute gradients of JPEG and of three bits for each value.
_UNEXPLAINED, _UNEXPLAINED_BY_STAND_IN = 0.25, 0.4
# Required cosine of two averaged gradients, and the cosine that the recommended average reaches.
_ALIKE, _ENOUGH = 0.5, 0.8
# How many successes an attack may lack beside a short PGD: as a fraction of all images, and of PGD's
# successes.
_MUCH, _THIRD = 0.1, 1 / 3
# Number of successes of a PGD on margins, or of these missed by an attack, that is needed for a conclusion;
# and the fraction of the successes that an equally strong attack may miss.
_TELLING, _BESIDE_PROBE = 5, 0.1
# How many more successes another attack of the same table needs to refute this one: number of images,
# fraction of all images, and fraction of the images that this attack leaves right.
_REFUTING, _REFUTED_OF_ALL, _REFUTED_OF_LEFT = 3, 0.05, 0.4
# Number of successes of noise that is needed for a conclusion; the factor by which an attack must exceed it;
# the fraction of right images below which an attack has too few images left to exceed it.
_NOISE_BROKE, _BESIDE_NOISE, _SATURATED = 5, 1.25, 0.1


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


def differing_passes(probed: ProbeResult, eot: int) -> Reason | None:
    """Check whether the model is random at test time and the attack averages too few gradients.

    Args:
        probed: result of the probe.
        eot: number of gradients that the attack averages, 1 or more.
    """
    answers = probed.answers
    # A model that changes its answers without random numbers keeps state: see remembered_calls.
    if answers.differing == 0 or not answers.draws:
        return None
    if eot == 1:
        return Reason.of(TrustCode.differing_passes, differing=answers.differing, images=answers.images)
    # Spearman-Brown formula: the cosine of two means of ``eot`` gradients.
    alike = max(probed.gradients.alike, 0.0)
    averaged = eot * alike / (1 + (eot - 1) * alike)
    if averaged >= _ALIKE:
        return None
    enough = math.ceil(_ENOUGH * (1 - alike) / (alike * (1 - _ENOUGH)) - 1e-9) if alike > 0.01 else None
    facts = {"eot": eot, "cosine": round(averaged, 2)}
    if enough is None:
        return Reason.of(TrustCode.hopeless_gradients, **facts)
    return Reason.of(TrustCode.opposed_gradients, **facts, enough=enough)


def remembered_calls(probed: ProbeResult) -> Reason | None:
    """Check whether the logits of the same images change although the random numbers are the same."""
    answers = probed.answers
    if not answers.remember:
        return None
    changed, images = answers.changed, answers.asked_again
    if changed == 0:
        changed, images = answers.differing, answers.images
    return Reason.of(TrustCode.remembered_calls, changed=changed, images=images)


def other_clean_answers(right: Hits, probed: ProbeResult) -> Reason | None:
    """Check whether the probe and the clean measurement disagree about images, without random numbers.

    Args:
        right: images that are right in the clean measurement, bool ``(N,)``.
        probed: result of the probe.
    """
    images = len(probed.numbers)
    changed = int((right[probed.numbers] != probed.right).sum())
    if probed.answers.draws or not more_than(changed, images, _TRICKLE):
        return None
    return Reason.of(TrustCode.other_clean_answers, changed=changed, images=images)


def depends_on_company(probed: ProbeResult) -> Reason | None:
    """Check whether the logits of an image depend on the other images of its batch."""
    answers = probed.answers
    if not more_than(answers.moved, answers.regrouped, _TRICKLE):
        return None
    return Reason.of(TrustCode.depends_on_company, moved=answers.moved, images=answers.regrouped)


def no_gradients(probed: ProbeResult) -> Reason | None:
    """Check whether the model gives no gradients, so that only black-box attacks were tried."""
    if probed.differentiable:
        return None
    return Reason.of(TrustCode.no_gradients)


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
    if probed.pgd is None or near is None or near.usable.mean() < 1 - _FEW:
        return None
    mine = left[probed.numbers[: len(probed.pgd)]]
    right = probed.right[: len(mine)]
    broken = int((right & ~probed.pgd).sum())
    return (int((right & ~mine).sum()), broken) if broken >= _TELLING else None


def keeps_up(left: Hits, probed: ProbeResult) -> bool:
    """Whether an attack has about as many successes as the probe's PGD on margins.

    Large logits make the gradient of the cross-entropy vanish, but they do not affect attacks on margins.

    Args:
        left: images that the attack leaves right at the probe's budget, bool ``(N,)``.
        probed: result of the probe.
    """
    beside = beside_probe(left, probed)
    return beside is not None and beside[0] >= (1 - _BESIDE_PROBE) * beside[1]


def dead_gradients(probed: ProbeResult) -> Reason | None:
    """Check whether the gradient of the cross-entropy is zero or not finite on too many images."""
    if not probed.differentiable:
        return None
    dead, right = probed.gradients.dead, probed.gradients.images
    if dead <= max(2, _FEW * right):
        return None
    return Reason.of(TrustCode.dead_gradients, dead=dead, images=right)


def faint_logits(left: Hits, probed: ProbeResult) -> Reason | None:
    """Check whether the softmax is nearly uniform and the attack therefore misses successes.

    Cross-entropy then raises all wrong classes alike, instead of the strongest rival.

    Args:
        left: images that the attack leaves right at the probe's budget, bool ``(N,)``.
        probed: result of the probe.
    """
    margin, beside = probed.gradients.margin, beside_probe(left, probed)
    if margin >= _FAINT or beside is None:
        return None
    mine, broken = beside
    if broken - mine < max(_TELLING, _BESIDE_MARGINS * broken):
        return None
    return Reason.of(TrustCode.faint_logits, margin=float(f"{margin:.2g}"))


def jumping_answers(probed: ProbeResult) -> Reason | None:
    """Check whether logits jump under an imperceptible change, for example noise seeded by the image."""
    gradients = probed.gradients
    if not more_than(gradients.jumping, gradients.looked, _FEW):
        return None
    return Reason.of(TrustCode.jumping_answers, jumping=gradients.jumping, images=gradients.looked)


def too_coarse(probed: ProbeResult) -> Reason | None:
    """Check whether all changes of the logits are below rounding, so that no gradient can be checked."""
    near = probed.gradients.near
    if near is None or near.usable.any():
        return None
    return Reason.of(TrustCode.too_coarse)


def false_gradients(probed: ProbeResult) -> Reason | None:
    """Check whether finite differences over a fraction of 1/255 contradict the gradient."""
    gradients = probed.gradients
    at_images = TrustCode.false_gradients, TrustCode.false_directions
    beside_them = TrustCode.false_gradients_beside, TrustCode.false_directions_beside
    for slopes, (wrong_on, wrong_along) in ((gradients.near, at_images), (gradients.beside, beside_them)):
        if slopes is None or not len(errors := slopes.errors()):
            continue
        wrong = int((errors > _WRONG).sum())
        if more_than(wrong, len(errors), _WRONG_PART_OF_COARSE if gradients.coarse else _WRONG_PART):
            return Reason.of(wrong_on, wrong=wrong, images=len(errors))
        by_direction = slopes.errors_by_direction()
        worst = int(by_direction.argmax())
        if by_direction[worst] > _OFF and not gradients.coarse:
            return Reason.of(wrong_along, percent=round(100 * float(by_direction[worst])), kind=KINDS[worst])
    return None


def shattered_gradients(probed: ProbeResult) -> Reason | None:
    """Check whether gradients are valid at one point only, and images survive.

    Networks without adversarial training may have equally rough gradients, but then their images do not
    survive.
    """
    gradients = probed.gradients
    if gradients.far is None or probed.pgd is None:
        return None
    kept = gradients.far.kept()
    right = probed.right[: len(probed.pgd)]
    survive = int((right & probed.pgd).sum())
    if kept is None or kept > _SHATTERED or not more_than(survive, int(right.sum()), _SURVIVE):
        return None
    return Reason.of(
        TrustCode.shattered_gradients,
        percent=round(100 * max(kept, 0)),
        survive=survive,
        images=int(right.sum()),
        eps=probed.eps,
    )


def stepwise_answers(probed: ProbeResult) -> Reason | None:
    """Check whether the gradients between two images explain the change of the logits."""
    passage = probed.gradients.passage
    if passage is None or not (usable := int(passage.usable.sum())):
        return None
    off = float(passage.errors_by_direction()[0])
    declared = probed.gradients.declared
    if off <= (_UNEXPLAINED_BY_STAND_IN if declared else _UNEXPLAINED):
        return None
    return Reason.of(
        TrustCode.stepwise_stand_in if declared else TrustCode.stepwise_answers,
        percent=round(100 * (1 - off)),
        pairs=usable,
    )


def withstands_anything(probed: ProbeResult, norm: str, classes: int) -> Reason | None:
    """Check whether images survive a budget that can turn all of them into the same mid-grey image.

    Args:
        probed: result of the probe.
        norm: norm of the budget.
        classes: number of classes; one image in ``classes`` may survive by chance.
    """
    if probed.huge is None:
        return None
    left, images = int(probed.huge.left.sum()), len(probed.huge.left)
    if not more_than(left, images, 1 / classes):
        return None
    return Reason.of(
        TrustCode.withstands_anything,
        left=left,
        images=images,
        norm=norm,
        eps=float(f"{probed.huge.eps:.3g}"),
    )


def black_box_wins(probed: ProbeResult) -> Reason | None:
    """Check whether the probe's black-box search succeeds on images on which its PGD fails."""
    witness = probed.witness
    if witness is None or not more_than(witness.successes, witness.images, _TRICKLE):
        return None
    return Reason.of(
        TrustCode.queries_win,
        queries=PROBE_QUERIES,
        successes=witness.successes,
        images=witness.images,
        eps=probed.eps,
    )


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
    if not more_than(broke, len(left), _TRICKLE):
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
    if not more_than(unverified, images, _TRICKLE):
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
