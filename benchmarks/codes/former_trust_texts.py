"""Texts of the trust checks in earlier versions, so that old baselines still give their codes."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_tin.benchmarks.codes.trust_texts import TrustCode

FORMER_TEXTS: Sequence[tuple[TrustCode, str]] = (
    (
        TrustCode.opposed_gradients,
        "the model is random, and means of {eot} gradients point in different directions (cosine "
        "{cosine}): average {enough} (eot={enough})",
    ),
    (
        TrustCode.hopeless_gradients,
        "the model is random, and means of {eot} gradients point in different directions (cosine "
        "{cosine}): no number of them is enough, add square",
    ),
    (
        TrustCode.remembered_calls,
        "logits changed on {changed} of {images} images when they were shown once more: the model "
        "keeps something between calls, or draws from a generator of its own, so that a figure "
        "follows from the calls before it",
    ),
    (
        TrustCode.other_clean_answers,
        "{changed} of {images} images were right in the clean measure and are not now, or the "
        "reverse: answers follow from the calls before or from the other images of a batch",
    ),
    (
        TrustCode.depends_on_company,
        "logits of {moved} of {images} images follow from the other images of their batch "
        "(statistics of the batch, say): a figure follows from the batch size and the order, fix "
        "these statistics",
    ),
    (
        TrustCode.jumping_answers,
        "logits of {jumping} of {images} images jump when no pixel changes by more than 1/100,000 "
        "(noise whose seed follows the image, say): gradients say nothing of such jumps, average "
        "over them",
    ),
    (
        TrustCode.stepwise_answers,
        "from one image to another the gradient explains {percent} % of how the answers change "
        "({pairs} pairs): they change in steps or for reasons that attacks do not see, add square",
    ),
    (
        TrustCode.stepwise_stand_in,
        "from one image to another the stand-in gradient explains {percent} % of how the answers "
        "change ({pairs} pairs): they change in steps or for reasons that attacks do not see, add "
        "square",
    ),
    (
        TrustCode.dead_gradients,
        "the gradient is zero or not finite on {dead} of {images} images: attack with a "
        "differentiable stand-in or without gradients (square)",
    ),
    (
        TrustCode.faint_logits,
        "the two highest logits lie {margin} apart, so that cross-entropy raises all wrong classes "
        "alike: attack on margins (fast, apgd-dlr)",
    ),
    (
        TrustCode.false_gradients,
        "measured differences contradict the gradient on {wrong} of {images} images: it misleads "
        "attacks (if it is a stand-in on purpose, set substitutes_gradient = True on the model)",
    ),
    (
        TrustCode.false_gradients_beside,
        "measured differences contradict the gradient beside the images on {wrong} of {images} "
        "images: it misleads attacks (if it is a stand-in on purpose, set substitutes_gradient = "
        "True on the model)",
    ),
    (
        TrustCode.false_directions,
        "measured differences contradict the gradient by {percent} % in {kind} directions: a part "
        "of it is missing or false, which misleads attacks",
    ),
    (
        TrustCode.false_directions_beside,
        "measured differences contradict the gradient beside the images by {percent} % in {kind} "
        "directions: a part of it is missing or false, which misleads attacks",
    ),
    (
        TrustCode.shattered_gradients,
        "a step along the gradient changes the margin by {percent} % of what the gradient promises, "
        "and {survive} of {images} images survive a PGD at eps {eps}: the gradients are shattered, "
        "smooth them or add square",
    ),
    (
        TrustCode.withstands_anything,
        "{left} of {images} images survive at {norm} eps {eps}, where each can be made grey: "
        "gradients mislead the attack, add square",
    ),
    (
        TrustCode.queries_win,
        "{queries} black-box queries broke {successes} of {images} images that PGD did not at eps "
        "{eps}: gradients mislead the attack, add square",
    ),
    (TrustCode.asked_nothing, "the attack never asked the model: check that it works"),
    (
        TrustCode.transfer_beats,
        "transfer from {name} broke {successes} of {images} images that this left at eps {eps}: "
        "gradients mislead it",
    ),
    (
        TrustCode.transfer_refutes,
        "transfer from {name} left {theirs} of {images} images right at eps {eps}, and this left "
        "{mine}: believe transfer from {name}",
    ),
    (
        TrustCode.weaker_than_probe,
        "a PGD of {steps} steps broke {gained} of {images} images that this left at eps {eps}: give "
        "it more steps or longer ones, and check that it works",
    ),
    (
        TrustCode.weaker_than_one_step,
        "{name} broke {lost} images that this left at eps {eps}, and this {won} that {name} left: "
        "check its steps and their length",
    ),
    (
        TrustCode.no_better_than_noise,
        "{name} broke {by_noise} of {images} images at eps {eps}, and this broke {successes}: it "
        "finds hardly more than chance does, check that it works",
    ),
    (
        TrustCode.catastrophic_overfitting,
        "PGD broke {successes} of the {images} images that FGSM left at eps {eps}: catastrophic "
        "overfitting, believe PGD",
    ),
    (
        TrustCode.single_step_blind,
        "PGD broke {successes} of the {images} images that FGSM left at eps {eps}: gradients "
        "mislead a single step, believe PGD",
    ),
    (
        TrustCode.not_converged,
        "still broke {late_successes} of {images} images in the last tenth of its budget: give more steps",
    ),
    (
        TrustCode.probe_not_converged,
        "a PGD of {steps} steps still broke {late_successes} of {images} images in its last step at "
        "eps {eps}: give more steps",
    ),
    (TrustCode.rising, "accuracy rises from {lower} % at eps {low} to {higher} % at {high}: give more steps"),
    (
        TrustCode.unverified_successes,
        "the search took {unverified} of {images} images for broken that the model in float32 gets "
        "right: give search=exact",
    ),
    (
        TrustCode.black_box_beats,
        "{name} broke {successes} of {images} images that this left at eps {eps}: gradients mislead it",
    ),
    (
        TrustCode.refuted,
        "{name} left {theirs} of {images} images right at eps {eps}, and this left {mine}: believe {name}",
    ),
    (TrustCode.no_figure, "there is no figure"),
    (TrustCode.clean_failed, "the clean measure failed"),
    (
        TrustCode.few_right,
        "too few images are right when clean: {right} of {images}, and {needed} are needed",
    ),
    (
        TrustCode.no_gradients,
        "the model gives no gradients: only black-box attacks were tried, one that attacks a "
        "differentiable stand-in may break more",
    ),
    (TrustCode.too_coarse, "the model's answers are too coarse to check its gradients"),
)
