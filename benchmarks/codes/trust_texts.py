"""The codes of the trust checks, and a text for each code: programs use the codes, people read the texts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class TrustCode(StrEnum):
    """Reasons why a figure is doubted or could not be checked."""

    # How the model answers.
    differing_passes = "differing-passes"
    opposed_gradients = "opposed-gradients"
    hopeless_gradients = "hopeless-gradients"
    remembered_calls = "remembered-calls"
    other_clean_answers = "other-clean-answers"
    depends_on_company = "depends-on-company"
    jumping_answers = "jumping-answers"
    stepwise_answers = "stepwise-answers"
    stepwise_stand_in = "stepwise-stand-in"
    # The model's gradients.
    dead_gradients = "dead-gradients"
    faint_logits = "faint-logits"
    false_gradients = "false-gradients"
    false_gradients_beside = "false-gradients-beside"
    false_directions = "false-directions"
    false_directions_beside = "false-directions-beside"
    shattered_gradients = "shattered-gradients"
    # Evidence from other attacks of the probe.
    withstands_anything = "withstands-anything"
    queries_win = "queries-win"
    # The attack itself.
    asked_nothing = "asked-nothing"
    weaker_than_probe = "weaker-than-probe"
    weaker_than_one_step = "weaker-than-one-step"
    no_better_than_noise = "no-better-than-noise"
    catastrophic_overfitting = "catastrophic-overfitting"
    single_step_blind = "single-step-blind"
    # The measured figure.
    not_converged = "not-converged"
    probe_not_converged = "probe-not-converged"
    rising = "rising"
    unverified_successes = "unverified-successes"
    black_box_beats = "black-box-beats"
    refuted = "refuted"
    transfer_beats = "transfer-beats"
    transfer_refutes = "transfer-refutes"
    checks_failed = "checks-failed"
    # A text in a baseline file of an earlier version.
    earlier = "earlier"
    # Reasons why the checks cannot judge.
    no_figure = "no-figure"
    clean_failed = "clean-failed"
    at_chance = "at-chance"
    few_images = "few-images"
    few_right = "few-right"
    no_gradients = "no-gradients"
    too_coarse = "too-coarse"

    @property
    def unchecked(self) -> bool:
        """True if the code says that the checks could not judge the figure."""
        return self in _UNCHECKED


_UNCHECKED = frozenset(
    {
        TrustCode.no_figure,
        TrustCode.clean_failed,
        TrustCode.at_chance,
        TrustCode.few_images,
        TrustCode.few_right,
        TrustCode.no_gradients,
        TrustCode.too_coarse,
    }
)

TEXTS: Mapping[TrustCode, str] = {
    TrustCode.differing_passes: (
        "logits differ between two passes on {differing} of {images} images: average gradients with eot=20"
    ),
    TrustCode.opposed_gradients: (
        "the model is random, and means of {eot} gradients point in different directions (cosine "
        "{cosine}): average {enough} gradients (eot={enough})"
    ),
    TrustCode.hopeless_gradients: (
        "the model is random, and means of {eot} gradients point in different directions (cosine "
        "{cosine}): averaging more gradients does not help, add the attack square"
    ),
    TrustCode.remembered_calls: (
        "the logits changed on {changed} of {images} images when the same images were shown again: "
        "the model keeps state between calls or has a random generator of its own, so the accuracy "
        "depends on earlier calls"
    ),
    TrustCode.other_clean_answers: (
        "the result of {changed} of {images} clean images differs from the clean measurement: "
        "answers depend on earlier calls or on the other images of a batch"
    ),
    TrustCode.depends_on_company: (
        "the logits of {moved} of {images} images depend on the other images of their batch (for "
        "example through batch statistics): the accuracy depends on the batch size and the order, "
        "fix these statistics"
    ),
    TrustCode.jumping_answers: (
        "the logits of {jumping} of {images} images jump although no pixel changes by more than "
        "1/100,000 (for example noise seeded by the image): gradients do not show these jumps, "
        "average over them"
    ),
    TrustCode.stepwise_answers: (
        "from one image to another the gradient explains {percent} % of the change of the margin "
        "({pairs} pairs): logits change in steps or for reasons that attacks do not see, add the "
        "attack square"
    ),
    TrustCode.stepwise_stand_in: (
        "from one image to another the substitute gradient explains {percent} % of the change of "
        "the margin ({pairs} pairs): logits change in steps or for reasons that attacks do not see, "
        "add the attack square"
    ),
    TrustCode.dead_gradients: (
        "the gradient is zero or not finite on {dead} of {images} images: attack a differentiable "
        "substitute, or attack without gradients (square)"
    ),
    TrustCode.faint_logits: (
        "the two highest logits differ by only {margin}, so cross-entropy raises all wrong classes "
        "alike: attack on margins (fast, apgd-dlr)"
    ),
    TrustCode.false_gradients: (
        "finite differences contradict the gradient on {wrong} of {images} images: the gradient "
        "misleads attacks (if it is a substitute on purpose, set substitutes_gradient = True on the "
        "model)"
    ),
    TrustCode.false_gradients_beside: (
        "at random points of the ball, finite differences contradict the gradient on {wrong} of "
        "{images} images: the gradient misleads attacks (if it is a substitute on purpose, set "
        "substitutes_gradient = True on the model)"
    ),
    TrustCode.false_directions: (
        "finite differences contradict the gradient by {percent} % in {kind} directions: a part of "
        "the gradient is missing or wrong, which misleads attacks"
    ),
    TrustCode.false_directions_beside: (
        "at random points of the ball, finite differences contradict the gradient by {percent} % in "
        "{kind} directions: a part of the gradient is missing or wrong, which misleads attacks"
    ),
    TrustCode.shattered_gradients: (
        "a step along the gradient changes the margin by {percent} % of the change that the "
        "gradient predicts, and {survive} of {images} images survive a PGD at eps {eps}: the "
        "gradients are shattered, smooth them or add the attack square"
    ),
    TrustCode.withstands_anything: (
        "{left} of {images} images survive at {norm} eps {eps}, although this budget can turn each "
        "image grey: gradients mislead the attack, add the attack square"
    ),
    TrustCode.queries_win: (
        "{queries} black-box queries succeed and PGD fails on {successes} of {images} images at eps "
        "{eps}: gradients mislead the attack, add the attack square"
    ),
    TrustCode.asked_nothing: "the attack never queried the model: check that it works",
    TrustCode.transfer_beats: (
        "transfer from {name} succeeds and this attack fails on {successes} of {images} images at "
        "eps {eps}: gradients mislead this attack"
    ),
    TrustCode.transfer_refutes: (
        "transfer from {name} leaves {theirs} of {images} images right at eps {eps}, and this "
        "attack leaves {mine}: rely on transfer from {name}"
    ),
    TrustCode.weaker_than_probe: (
        "a PGD of {steps} steps succeeds and this attack fails on {gained} of {images} images at "
        "eps {eps}: give this attack more steps or longer ones, and check that it works"
    ),
    TrustCode.weaker_than_one_step: (
        "{name} succeeds and this attack fails on {lost} images at eps {eps}, and the reverse holds "
        "on {won} images: check the number and the length of this attack's steps"
    ),
    TrustCode.no_better_than_noise: (
        "{name} succeeds on {by_noise} of {images} images at eps {eps}, and this attack on "
        "{successes}: it is hardly better than chance, check that it works"
    ),
    TrustCode.catastrophic_overfitting: (
        "PGD succeeds on {successes} of the {images} images on which FGSM fails at eps {eps}: "
        "catastrophic overfitting, rely on PGD"
    ),
    TrustCode.single_step_blind: (
        "PGD succeeds on {successes} of the {images} images on which FGSM fails at eps {eps}: "
        "gradients mislead a single step, rely on PGD"
    ),
    TrustCode.not_converged: (
        "the attack still succeeded on {late_successes} of {images} images in the last tenth of its "
        "budget: give it more steps"
    ),
    TrustCode.probe_not_converged: (
        "a PGD of {steps} steps still succeeded on {late_successes} of {images} images in its last "
        "step at eps {eps}: give the attack more steps"
    ),
    TrustCode.rising: (
        "accuracy rises from {lower} % at eps {low} to {higher} % at {high}: give the attack more steps"
    ),
    TrustCode.unverified_successes: (
        "the model in float32 gets {unverified} of {images} images right that the search took for "
        "adversarial: use search=exact"
    ),
    TrustCode.black_box_beats: (
        "{name} succeeds and this attack fails on {successes} of {images} images at eps {eps}: "
        "gradients mislead this attack"
    ),
    TrustCode.refuted: (
        "{name} leaves {theirs} of {images} images right at eps {eps}, and this attack leaves "
        "{mine}: rely on {name}"
    ),
    TrustCode.checks_failed: "the checks failed: {error}",
    TrustCode.no_figure: "nothing was measured",
    TrustCode.clean_failed: "the clean measurement failed",
    TrustCode.at_chance: "clean accuracy is not above chance",
    TrustCode.few_images: "too few images: {images}, and {needed} are needed",
    TrustCode.few_right: "too few clean images are right: {right} of {images}, and {needed} are needed",
    TrustCode.no_gradients: (
        "the model gives no gradients, so only black-box attacks were tried: an attack on a "
        "differentiable substitute may succeed more often"
    ),
    TrustCode.too_coarse: "the model's logits are too coarse to check its gradients",
    # It matches any text, so it must come last.
    TrustCode.earlier: "{text}",
}
