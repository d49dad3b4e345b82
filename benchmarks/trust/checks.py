"""Doubts: reasons not to believe a figure, each a small test of evidence.

A reason must never appear by chance: what counts images is an exact test at :data:`LEVEL`, and asks for an
effect that would move a figure, not for a difference alone.

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
# Part of the images that honest attacks differ by: one breaks what another just misses.
_TRICKLE = 0.01
# Part of the images that a sound attack may break in the last tenth of its budget: those on the ball's border
# flip last. On small networks up to 9 of 160 did, and five times the steps then broke none of the others.
_LATE = 0.05
# Part of the right images that may lack a gradient (a network that is very sure of a few).
_FEW = 0.05
# Typical distance of the two highest logits below which cross-entropy hardly tells rivals apart (in eight
# honest networks it was 1 to 3.6); the part of what a PGD on margins breaks that an attack may miss then.
_FAINT, _BESIDE_MARGINS = 0.2, 0.2
# How far a gradient may be off on an image, on what part of the images, and along one kind of direction.
_WRONG, _WRONG_PART, _OFF = 0.5, 0.03, 0.25
# The same part if logits have 8 or 11 bits: over a distance that these tell apart, gradients turn.
_WRONG_PART_OF_COARSE = 0.3
# Part of a promised change that must happen over a step of an attack, if this part of the images survives.
_SHATTERED, _SURVIVE = 0.15, 0.1
# How far the gradients between two images may be off: those of honest networks were by 0.15 at most,
# stand-ins for JPEG and for three bits a value by 0.26.
_UNEXPLAINED, _UNEXPLAINED_BY_STAND_IN = 0.25, 0.4
# How alike two averaged gradients must be, and how alike they are asked to be.
_ALIKE, _ENOUGH = 0.5, 0.8
# How much less an attack may break than a short PGD: of all images, and of those that the PGD broke.
_MUCH, _THIRD = 0.1, 1 / 3
# Images that a PGD on margins must break, or an attack must miss of them, to tell anything, and the part of
# them that an attack that keeps up may miss.
_TELLING, _BESIDE_PROBE = 5, 0.1
# How much more another attack of the same table must break: images, of all, and of those that this one left.
_REFUTING, _REFUTED_OF_ALL, _REFUTED_OF_LEFT = 3, 0.05, 0.4
# Images that noise must break to tell anything; how many times as many an attack must break; the part of the
# right images below which there is nothing left to break.
_NOISE_BROKE, _BESIDE_NOISE, _SATURATED = 5, 1.25, 0.1


def more_than(count: int, trials: int, share: float) -> bool:
    """Is a count above a share of the trials by more than chance? One-sided exact binomial test.

    >>> more_than(3, 200, 0.01), more_than(12, 200, 0.01)
    (False, True)
    """
    from scipy.stats import binomtest

    return trials > 0 and bool(binomtest(count, trials, share, alternative="greater").pvalue < LEVEL)


def outdoes(one: Hits, other: Hits) -> bool:
    """Does one attack leave fewer images right than another? One-sided exact McNemar test.

    Args:
        one: images that the one leaves right, bool ``(N,)``.
        other: images that the other leaves right, bool ``(N,)``.
    """
    gained, lost = int((other & ~one).sum()), int((one & ~other).sum())
    return more_than(gained, gained + lost, 0.5)


def differing_passes(probed: ProbeResult, eot: int) -> Reason | None:
    """The model is random at test time, and too few gradients were averaged to follow."""
    answers = probed.answers
    # One that draws nothing and still answers otherwise remembers: see the next doubt.
    if answers.differing == 0 or not answers.draws:
        return None
    if eot == 1:
        return Reason.of(TrustCode.differing_passes, differing=answers.differing, images=answers.images)
    # Spearman and Brown: how alike two means of that many draws are.
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
    """The same images, with the same random numbers, got another answer the second time."""
    answers = probed.answers
    if not answers.remember:
        return None
    changed, images = answers.changed, answers.asked_again
    if changed == 0:
        changed, images = answers.differing, answers.images
    return Reason.of(TrustCode.remembered_calls, changed=changed, images=images)


def other_clean_answers(right: Hits, probed: ProbeResult) -> Reason | None:
    """The probe found other images right than the clean measure did, and no random number explains it.

    Args:
        right: images right in the clean measure, bool ``(N,)``.
        probed: of the probe.
    """
    images = len(probed.numbers)
    changed = int((right[probed.numbers] != probed.right).sum())
    if probed.answers.draws or not more_than(changed, images, _TRICKLE):
        return None
    return Reason.of(TrustCode.other_clean_answers, changed=changed, images=images)


def depends_on_company(probed: ProbeResult) -> Reason | None:
    """What an image is taken for follows from the images that are shown beside it."""
    answers = probed.answers
    if not more_than(answers.moved, answers.regrouped, _TRICKLE):
        return None
    return Reason.of(TrustCode.depends_on_company, moved=answers.moved, images=answers.regrouped)


def no_gradients(probed: ProbeResult) -> Reason | None:
    """Nobody can follow gradients, so that only queries were tried."""
    if probed.differentiable:
        return None
    return Reason.of(TrustCode.no_gradients)


def beside_probe(left: Hits, probed: ProbeResult) -> tuple[int, int] | None:
    """Images that an attack breaks, and those that a PGD on margins breaks, whose gradients no scale kills.

    Args:
        left: images that the attack leaves right at the probe's budget, bool ``(N,)``.
        probed: of the probe.

    Returns:
        None if the PGD tells nothing: it did not run, could not follow gradients, or broke too few.
    """
    near = probed.gradients.near
    if probed.pgd is None or near is None or near.usable.mean() < 1 - _FEW:
        return None
    mine = left[probed.numbers[: len(probed.pgd)]]
    right = probed.right[: len(mine)]
    broken = int((right & ~probed.pgd).sum())
    return (int((right & ~mine).sum()), broken) if broken >= _TELLING else None


def keeps_up(left: Hits, probed: ProbeResult) -> bool:
    """Whether an attack breaks about as much as a PGD on margins.

    Logits of a large scale leave cross-entropy without a gradient, and attacks on margins what they were.
    """
    beside = beside_probe(left, probed)
    return beside is not None and beside[0] >= (1 - _BESIDE_PROBE) * beside[1]


def dead_gradients(probed: ProbeResult) -> Reason | None:
    """No attack that climbs the cross-entropy gets anywhere."""
    if not probed.differentiable:
        return None
    dead, right = probed.gradients.dead, probed.gradients.images
    if dead <= max(2, _FEW * right):
        return None
    return Reason.of(TrustCode.dead_gradients, dead=dead, images=right)


def faint_logits(left: Hits, probed: ProbeResult) -> Reason | None:
    """The softmax is nearly even, so that cross-entropy raises all wrong classes, the near and the far ones.

    Args:
        left: images that the attack leaves right at the probe's budget, bool ``(N,)``.
        probed: of the probe.
    """
    margin, beside = probed.gradients.margin, beside_probe(left, probed)
    if margin >= _FAINT or beside is None:
        return None
    mine, broken = beside
    if broken - mine < max(_TELLING, _BESIDE_MARGINS * broken):
        return None
    return Reason.of(TrustCode.faint_logits, margin=float(f"{margin:.2g}"))


def jumping_answers(probed: ProbeResult) -> Reason | None:
    """Answers change though no pixel does, in effect: noise whose seed follows the image, say."""
    gradients = probed.gradients
    if not more_than(gradients.jumping, gradients.looked, _FEW):
        return None
    return Reason.of(TrustCode.jumping_answers, jumping=gradients.jumping, images=gradients.looked)


def too_coarse(probed: ProbeResult) -> Reason | None:
    """No change of an answer stands out from rounding, so that no gradient can be checked."""
    near = probed.gradients.near
    if near is None or near.usable.any():
        return None
    return Reason.of(TrustCode.too_coarse)


def false_gradients(probed: ProbeResult) -> Reason | None:
    """Over a fraction of a level of 255 the answers do not change as the gradient says."""
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
    """The gradient is right at one point, says nothing of a step further, and images survive.

    Networks that were trained plainly may be as rough; theirs do not survive.
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
    """From image to image the answers change, and the gradients on the way do not say so."""
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
    """Images survive where each can be made mid-grey, the same for all."""
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
    """Queries alone break what gradients do not, whatever attack was asked for."""
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
    """FGSM leaves most images, PGD breaks many of those: the gradient holds for a small step only.

    After single-step training that is catastrophic overfitting: half of the right images left, half of
    those broken. An undefended network resists one large step, too, but not on nearly all images: nine
    in ten left, a third of those broken.

    Args:
        right: images right as they are, bool ``(N,)``.
        fgsm: images that FGSM leaves right, likewise.
        strong: images that an iterative attack leaves right, likewise.
        eps: of both.
        single_step_training: whether the cell was trained on images of one gradient step.
    """
    kept = right & fgsm
    least, share = (0.5, 0.5) if single_step_training else (0.9, _THIRD)
    broken = int((kept & ~strong).sum())
    if kept.sum() < least * right.sum() or not more_than(broken, int(kept.sum()), share):
        return None
    code = TrustCode.catastrophic_overfitting if single_step_training else TrustCode.single_step_blind
    return Reason.of(code, successes=broken, images=int(kept.sum()), eps=eps)


def weaker_than_probe(left: Hits, probed: ProbeResult, *, iterative: bool) -> Reason | None:
    """A short PGD broke what the attack did not: a tenth of all images, or a third of what it broke itself.

    Args:
        left: images that the attack leaves right at the probe's budget, bool ``(N,)``.
        probed: of the probe.
        iterative: whether the attack claims to be as strong as that. One step or a black-box search does
            not; held against it is only that it breaks nothing at all where half of the images can be.
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
    """An attack that cannot know anything about the model."""
    if backward_passes > 0 or forward_passes > images:
        return None
    return Reason.of(TrustCode.asked_nothing)


def black_box_beats(
    left: Hits, black_box: Hits, eps: float, name: str, *, transfer: bool = False
) -> Reason | None:
    """An attack without gradients, or of another model's, broke what this one did not.

    Args:
        left: images that the attack with gradients leaves right, bool ``(N,)``.
        black_box: images that the other leaves right, likewise.
        eps: of both.
        name: of the other.
        transfer: whether the other is images made on another cell, by its name.
    """
    broke = int((left & ~black_box).sum())
    if not more_than(broke, len(left), _TRICKLE):
        return None
    code = TrustCode.transfer_beats if transfer else TrustCode.black_box_beats
    return Reason.of(code, name=name, successes=broke, images=len(left), eps=eps)


def weaker_than_one_step(left: Hits, fgsm: Hits, eps: float, name: str) -> Reason | None:
    """An attack of many steps is outdone by one of a single step."""
    if not outdoes(fgsm, left):
        return None
    lost, won = int((left & ~fgsm).sum()), int((fgsm & ~left).sum())
    return Reason.of(TrustCode.weaker_than_one_step, name=name, lost=lost, won=won, eps=eps)


def rising(lower: Hits, higher: Hits, low: float, high: float) -> Reason | None:
    """More budget, fewer broken images."""
    if not outdoes(lower, higher):
        return None
    before, after = (round(100 * float(hits.mean()), 1) for hits in (lower, higher))
    return Reason.of(TrustCode.rising, lower=before, low=low, higher=after, high=high)


def not_converged(late_successes: int | None, images: int) -> Reason | None:
    """Images were still being broken when the budget ended."""
    if late_successes is None or not more_than(late_successes, images, _LATE):
        return None
    return Reason.of(TrustCode.not_converged, late_successes=late_successes, images=images)


def probe_not_converged(probed: ProbeResult) -> Reason | None:
    """The same for an attack under a fixed budget, which does not tell: it is no longer than the probe."""
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
    """What was searched with is not the model."""
    if not more_than(unverified, images, _TRICKLE):
        return None
    return Reason.of(TrustCode.unverified_successes, unverified=unverified, images=images)


def refuted(left: Hits, other: Hits, eps: float, name: str, *, transfer: bool = False) -> Reason | None:
    """Another attack broke clearly more of what this one left, so that its figure is far too high.

    Both saw the same images: the question is only how much. Honest attacks differ by a few points, which is
    no reason: PGD-10 53 % beside AutoAttack 49 % of an adversarially trained network, say.

    Args:
        left: images that an iterative attack leaves right, bool ``(N,)``.
        other: images that the other leaves right, likewise.
        eps: of both.
        name: of the other.
        transfer: whether the other is images made on another cell, by its name.
    """
    mine, theirs, images = int(left.sum()), int(other.sum()), len(left)
    gain = mine - theirs  # what the other broke of those left, net of the reverse
    if gain < _REFUTING or gain <= _REFUTED_OF_ALL * images or gain <= _REFUTED_OF_LEFT * mine:
        return None
    code = TrustCode.transfer_refutes if transfer else TrustCode.refuted
    return Reason.of(code, name=name, theirs=theirs, images=images, eps=eps, mine=mine)


def no_better_than_noise(
    left: Hits, noise_left: Hits, right: Hits, eps: float, name: str = "noise"
) -> Reason | None:
    """An attack that follows gradients breaks hardly more images than random points of the ball do.

    In d dimensions a step along the gradient moves a margin some sqrt(d) times as far as noise of the same
    length. An attack that works breaks many times more, unless noise breaks nearly all there are. It is
    held against none that left a tenth of the right images or less, nor while noise broke fewer than five.

    Args:
        left: images that an iterative attack leaves right, bool ``(N,)``.
        noise_left: images that noise leaves right, likewise.
        right: images right as they are, likewise.
        eps: of both.
        name: of the noise.
    """
    images = int(right.sum())
    broke, by_noise = int((right & ~left).sum()), int((right & ~noise_left).sum())
    if by_noise < _NOISE_BROKE or broke > _BESIDE_NOISE * by_noise or images - broke <= _SATURATED * images:
        return None
    return Reason.of(
        TrustCode.no_better_than_noise, name=name, by_noise=by_noise, images=images, eps=eps, successes=broke
    )
