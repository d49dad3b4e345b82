"""Trust checks of a model: is it a function of the image, and are its gradients of use?

Each check returns its reason, or None if it finds nothing. ``probed`` is the result of the probe. A reason
must not appear by chance: see :mod:`robustbench_tin.benchmarks.trust.comparisons`.

The checks follow Athalye, Carlini and Wagner, 2018, "Obfuscated Gradients Give a False Sense of Security",
arXiv 1802.00420, and Carlini et al., 2019, "On Evaluating Adversarial Robustness", arXiv 1902.06705.
"""

from __future__ import annotations

import math

from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.trust.comparisons import FEW, TELLING, TRICKLE, beside_probe, more_than
from robustbench_tin.benchmarks.trust.probe import Hits, ProbeResult
from robustbench_tin.benchmarks.trust.slopes import KINDS
from robustbench_tin.benchmarks.trust.trials import PROBE_QUERIES

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
    if probed.answers.draws or not more_than(changed, images, TRICKLE):
        return None
    return Reason.of(TrustCode.other_clean_answers, changed=changed, images=images)


def depends_on_company(probed: ProbeResult) -> Reason | None:
    """Check whether the logits of an image depend on the other images of its batch."""
    answers = probed.answers
    if not more_than(answers.moved, answers.regrouped, TRICKLE):
        return None
    return Reason.of(TrustCode.depends_on_company, moved=answers.moved, images=answers.regrouped)


def no_gradients(probed: ProbeResult) -> Reason | None:
    """Check whether the model gives no gradients, so that only black-box attacks were tried."""
    if probed.differentiable:
        return None
    return Reason.of(TrustCode.no_gradients)


def dead_gradients(probed: ProbeResult) -> Reason | None:
    """Check whether the gradient of the cross-entropy is zero or not finite on too many images."""
    if not probed.differentiable:
        return None
    dead, right = probed.gradients.dead, probed.gradients.images
    if dead <= max(2, FEW * right):
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
    if broken - mine < max(TELLING, _BESIDE_MARGINS * broken):
        return None
    return Reason.of(TrustCode.faint_logits, margin=float(f"{margin:.2g}"))


def jumping_answers(probed: ProbeResult) -> Reason | None:
    """Check whether logits jump under an imperceptible change, for example noise seeded by the image."""
    gradients = probed.gradients
    if not more_than(gradients.jumping, gradients.looked, FEW):
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
    if witness is None or not more_than(witness.successes, witness.images, TRICKLE):
        return None
    return Reason.of(
        TrustCode.queries_win,
        queries=PROBE_QUERIES,
        successes=witness.successes,
        images=witness.images,
        eps=probed.eps,
    )
