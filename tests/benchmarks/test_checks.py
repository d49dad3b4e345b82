"""Each trust check: results that raise it, and results that do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.trust import attack_checks, comparisons, model_checks
from robustbench_tin.benchmarks.trust.answer_stability import Answers
from robustbench_tin.benchmarks.trust.probe import Gradients, Hits, ProbeResult
from robustbench_tin.benchmarks.trust.slopes import KINDS, Slopes
from robustbench_tin.benchmarks.trust.trials import Huge, Witness


def left(count: int, of: int = 128) -> Hits:
    """The first ``count`` images stay right."""
    return np.arange(of) < count


def slopes(*errors: float, floor: float = 0.0) -> Slopes:
    """One image for each error: each promised change is 1, each measured one is off by the error."""
    promised = np.ones((len(errors), len(KINDS)))
    # |m - p| / (|m| + |p|) is the error for m between 0 and 1.
    measured = np.array([[(1 - error) / (1 + error)] * len(KINDS) for error in errors])
    return Slopes(measured, promised, np.full(len(errors), floor), [1] * len(KINDS))


@pytest.fixture
def honest() -> ProbeResult:
    """All of 128 images are right; 60 stay right under PGD and 70 under FGSM."""
    right_gradient = slopes(*[0.02] * 48)
    return ProbeResult(
        numbers=np.arange(128),
        right=left(128),
        answers=Answers(images=128),
        eps=0.03,
        fgsm=left(70),
        noise=left(127),
        gradients=Gradients(
            images=128,
            looked=48,
            near=right_gradient,
            beside=right_gradient,
            far=right_gradient,
            passage=right_gradient,
        ),
        pgd=left(60),
        witness=Witness(images=12, successes=0),
        huge=Huge(0.5, left(0, 64)),
    )


def with_answers(probed: ProbeResult, **facts: object) -> ProbeResult:
    return dataclasses.replace(probed, answers=dataclasses.replace(probed.answers, **facts))


def with_gradients(probed: ProbeResult, **facts: object) -> ProbeResult:
    return dataclasses.replace(probed, gradients=dataclasses.replace(probed.gradients, **facts))


def test_an_honest_model_raises_no_doubt(honest: ProbeResult) -> None:
    of_model = [
        model_checks.dead_gradients,
        model_checks.jumping_answers,
        model_checks.false_gradients,
        model_checks.shattered_gradients,
        model_checks.stepwise_answers,
        model_checks.black_box_wins,
        model_checks.too_coarse,
        model_checks.no_gradients,
        model_checks.remembered_calls,
        model_checks.depends_on_company,
    ]
    assert [doubt(honest) for doubt in of_model] == [None] * len(of_model)
    assert model_checks.differing_passes(honest, 1) is None
    assert model_checks.withstands_anything(honest, "linf", 10) is None
    assert attack_checks.weaker_than_probe(left(62), honest, iterative=True) is None


def test_a_random_model_is_doubted_until_gradients_are_averaged(honest: ProbeResult) -> None:
    probed = with_answers(honest, differing=3)
    assert "3 of 128" in str(model_checks.differing_passes(probed, 1))
    assert model_checks.differing_passes(probed, 20) is None


@pytest.mark.parametrize(
    ("alike", "eot", "said"),
    # Means of m draws are alike by m a / (1 + (m - 1) a).
    [
        (0.5, 2, None),
        (0.2, 2, "cosine 0.33"),
        (0.2, 20, None),
        (0.04, 20, "eot=96"),
        (0.0, 20, "does not help"),
    ],
)
def test_as_many_gradients_are_averaged_as_agree(
    honest: ProbeResult, alike: float, eot: int, said: str | None
) -> None:
    reason = model_checks.differing_passes(
        with_gradients(with_answers(honest, differing=3), alike=alike), eot
    )
    assert reason is None if said is None else said in str(reason)


def test_one_that_remembers_is_not_taken_for_a_random_one(honest: ProbeResult) -> None:
    assert model_checks.remembered_calls(honest) is None
    probed = with_answers(honest, differing=3, draws=False)
    assert model_checks.differing_passes(probed, 1) is None
    assert "3 of 128" in str(model_checks.remembered_calls(probed))
    probed = with_answers(probed, asked_again=64, changed=2)
    assert "2 of 64" in str(model_checks.remembered_calls(probed))
    # A model with both faults gets both reasons; averaging removes only one of them.
    both = with_answers(probed, draws=True)
    assert model_checks.differing_passes(both, 1) is not None
    assert model_checks.differing_passes(both, 20) is None
    assert model_checks.remembered_calls(both) is not None


@pytest.mark.parametrize(
    ("changed", "draws", "doubted"), [(3, False, False), (12, False, True), (12, True, False)]
)
def test_the_probe_finds_right_what_the_clean_measure_did(
    honest: ProbeResult, changed: int, draws: bool, doubted: bool
) -> None:
    probed = with_answers(honest, draws=draws)
    assert (model_checks.other_clean_answers(left(128 - changed), probed) is not None) == doubted


@pytest.mark.parametrize(("wrong", "doubted"), [(0, False), (6, False), (7, True), (48, True)])
@pytest.mark.parametrize("where", ["near", "beside"])
def test_gradients_that_differences_contradict_are_false(
    honest: ProbeResult, where: str, wrong: int, doubted: bool
) -> None:
    probed = with_gradients(honest, **{where: slopes(*[0.8] * wrong, *[0.02] * (48 - wrong))})
    reason = model_checks.false_gradients(probed)
    assert (reason is not None and f"on {wrong} of 48 images" in str(reason)) == doubted
    assert not doubted or ("random points of the ball" in str(reason)) == (where == "beside")


def test_a_direction_that_the_gradient_misses_is_named(honest: ProbeResult) -> None:
    near = slopes(*[0.02] * 48)
    near.promised[:, KINDS.index("alternating")] = 0.3
    reason = model_checks.false_gradients(with_gradients(honest, near=near))
    assert "in alternating directions" in str(reason)
    assert "by 52 %" in str(reason)  # 0.96 against 0.3


def test_a_cut_channel_is_found_even_if_it_matters_less(honest: ProbeResult) -> None:
    parts = [3 if kind == "one-channel" else 1 for kind in KINDS]
    near = dataclasses.replace(slopes(*[0.02] * 48), parts=parts)
    third, column = np.arange(48) % 3 == 2, KINDS.index("one-channel")
    near.measured[third, column] *= 0.05
    near.promised[third, column] = 0
    assert "in one-channel directions" in str(model_checks.false_gradients(with_gradients(honest, near=near)))


def test_half_precision_is_granted_turns_of_the_gradient(honest: ProbeResult) -> None:
    near = slopes(*[0.8] * 14, *[0.3] * 34)
    assert model_checks.false_gradients(with_gradients(honest, near=near)) is not None
    assert model_checks.false_gradients(with_gradients(honest, near=near, coarse=True)) is None
    assert (
        model_checks.false_gradients(with_gradients(honest, near=slopes(*[1.0] * 48), coarse=True))
        is not None
    )


def test_what_rounding_hides_is_unchecked(honest: ProbeResult) -> None:
    probed = with_gradients(honest, near=slopes(*[0.8] * 48, floor=1.0), beside=None)
    assert model_checks.false_gradients(probed) is None
    assert model_checks.too_coarse(probed).code is TrustCode.too_coarse


@pytest.mark.parametrize(
    ("kept", "pgd", "doubted"), [(0.05, 60, True), (-0.5, 60, True), (0.3, 60, False), (0.05, 10, False)]
)
def test_rough_gradients_are_a_doubt_if_images_survive(
    honest: ProbeResult, kept: float, pgd: int, doubted: bool
) -> None:
    far = Slopes(np.full((24, 1), kept), np.ones((24, 1)), np.zeros(24), [1])
    probed = dataclasses.replace(with_gradients(honest, far=far), pgd=left(pgd))
    assert (model_checks.shattered_gradients(probed) is not None) == doubted


@pytest.mark.parametrize(
    ("error", "declared", "doubted"),
    [(0.15, False, False), (0.3, False, True), (0.3, True, False), (0.5, True, True)],
)
def test_gradients_explain_how_answers_change_from_image_to_image(
    honest: ProbeResult, error: float, declared: bool, doubted: bool
) -> None:
    passage = slopes(*[error] * 24)
    reason = model_checks.stepwise_answers(with_gradients(honest, passage=passage, declared=declared))
    assert (reason is not None) == doubted
    assert not doubted or ("substitute" in str(reason)) == declared


@pytest.mark.parametrize(("jumping", "doubted"), [(0, False), (8, False), (9, True)])
def test_a_few_answers_may_jump(honest: ProbeResult, jumping: int, doubted: bool) -> None:
    reason = model_checks.jumping_answers(with_gradients(honest, jumping=jumping))
    assert (reason is not None) == doubted


@pytest.mark.parametrize(("moved", "doubted"), [(0, False), (3, False), (4, True), (32, True)])
def test_a_few_images_may_move_in_other_company(honest: ProbeResult, moved: int, doubted: bool) -> None:
    reason = model_checks.depends_on_company(with_answers(honest, regrouped=32, moved=moved))
    assert (reason is not None) == doubted


def test_without_gradients_none_is_called_dead(honest: ProbeResult) -> None:
    probed = dataclasses.replace(with_gradients(honest, dead=128), differentiable=False)
    assert model_checks.dead_gradients(probed) is None
    assert "black-box attacks" in str(model_checks.no_gradients(probed))
    assert model_checks.no_gradients(probed).code is TrustCode.no_gradients
    assert model_checks.no_gradients(honest) is None


@pytest.mark.parametrize(("dead", "doubted"), [(2, False), (6, False), (7, True), (128, True)])
def test_a_few_dead_gradients_are_granted(honest: ProbeResult, dead: int, doubted: bool) -> None:
    reason = model_checks.dead_gradients(with_gradients(honest, dead=dead))
    assert (reason is not None) == doubted


@pytest.mark.parametrize(
    ("margin", "survive", "doubted"), [(0.19, 80, True), (0.19, 70, False), (0.2, 80, False)]
)
def test_faint_logits_mislead_an_attack_that_lags_behind_one_on_margins(
    honest: ProbeResult, margin: float, survive: int, doubted: bool
) -> None:
    """The PGD on margins leaves 60 of 128."""
    probed = with_gradients(honest, margin=margin)
    assert (model_checks.faint_logits(left(survive), probed) is not None) == doubted
    assert model_checks.faint_logits(left(survive), dataclasses.replace(probed, pgd=None)) is None


@pytest.mark.parametrize(("survive", "doubted"), [(6, False), (7, True)])
def test_a_few_images_tell_nothing_of_faint_logits(honest: ProbeResult, survive: int, doubted: bool) -> None:
    """Two of eight images stay right under the PGD on margins."""
    probed = dataclasses.replace(
        with_gradients(honest, margin=0.01), numbers=np.arange(8), right=left(8, 8), pgd=left(2, 8)
    )
    assert (model_checks.faint_logits(left(survive), probed) is not None) == doubted


def test_survivors_of_a_huge_budget_count_against_chance(honest: ProbeResult) -> None:
    some = dataclasses.replace(honest, huge=Huge(0.5, left(20, 64)))
    assert "20 of 64 images survive at l2 eps 0.5" in str(model_checks.withstands_anything(some, "l2", 10))
    assert model_checks.withstands_anything(some, "l2", 2) is None


@pytest.mark.parametrize(("broke", "doubted"), [(0, False), (2, False), (3, True)])
def test_a_black_box_that_breaks_what_pgd_did_not_is_a_doubt(
    honest: ProbeResult, broke: int, doubted: bool
) -> None:
    reason = model_checks.black_box_wins(dataclasses.replace(honest, witness=Witness(12, broke)))
    assert (reason is not None and f"on {broke} of 12 images" in str(reason)) == doubted


def test_one_that_claims_less_is_doubted_only_where_it_breaks_nothing(honest: ProbeResult) -> None:
    strong = dataclasses.replace(honest, pgd=left(20))
    assert "fails on 80 of" in str(attack_checks.weaker_than_probe(left(100), strong, iterative=True))
    assert attack_checks.weaker_than_probe(left(100), strong, iterative=False) is None
    assert "fails on 108 of" in str(attack_checks.weaker_than_probe(left(128), strong, iterative=False))


def test_overfitting_to_a_single_step_needs_fgsm_to_leave_most_and_pgd_to_break_them() -> None:
    def blind(fgsm: int, pgd: int, *, trained: bool) -> str | None:
        return attack_checks.single_step_blind(
            left(128), left(fgsm), left(pgd), 0.03, single_step_training=trained
        )

    assert "catastrophic overfitting" in str(blind(90, 10, trained=True))
    assert blind(90, 70, trained=True) is None
    assert blind(30, 0, trained=True) is None
    # So an undefended network may look.
    assert blind(90, 10, trained=False) is None
    assert "mislead" in str(blind(125, 10, trained=False))


def test_a_single_step_may_not_outdo_many() -> None:
    assert attack_checks.weaker_than_one_step(left(60), left(58), 0.03, "fgsm") is None
    assert "fgsm succeeds and this attack fails on 40 images" in str(
        attack_checks.weaker_than_one_step(left(100), left(60), 0.03, "fgsm")
    )


def test_another_attack_may_break_a_few_images_more() -> None:
    assert attack_checks.black_box_beats(left(60), left(57), 0.03, "square") is None
    reason = str(attack_checks.black_box_beats(left(60), left(40), 0.03, "square"))
    assert "square succeeds and this attack fails on 20 of 128" in reason


def test_accuracy_may_not_rise_with_the_budget() -> None:
    assert attack_checks.rising(left(60), left(63), 0.01, 0.03) is None
    assert attack_checks.rising(left(60), left(20), 0.01, 0.03) is None
    assert "from 46.9 % at eps 0.01 to 70.3 % at 0.03" in str(
        attack_checks.rising(left(60), left(90), 0.01, 0.03)
    )


@pytest.mark.parametrize(
    ("doubt", "granted"), [(attack_checks.not_converged, 10), (attack_checks.unverified_successes, 2)]
)
def test_a_trickle_is_granted(doubt, granted: int) -> None:
    assert doubt(granted, 128) is None
    assert "20 of 128" in str(doubt(20, 128))


def test_a_short_attack_is_doubted_where_the_probe_was_not_through(honest: ProbeResult) -> None:
    assert attack_checks.probe_not_converged(dataclasses.replace(honest, late_successes=3)) is None
    assert "20 of 128" in str(
        attack_checks.probe_not_converged(dataclasses.replace(honest, late_successes=20))
    )


def test_a_fixed_budget_says_nothing_of_its_last_steps() -> None:
    assert attack_checks.not_converged(None, 128) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "of", "refuted"),
    [
        (41, 21, 100, True),
        (530, 490, 1_000, False),  # PGD-10 beside AutoAttack on an adversarially trained network
        (900, 790, 1_000, False),  # many images, few of those left
        (30, 23, 1_000, False),  # many of those left, few images
        (100, 49, 1_000, True),
        (100, 50, 1_000, False),  # 5 % and no more
        (260, 156, 1_000, False),  # 40 % and no more
        (260, 155, 1_000, True),
        (12, 8, 60, False),  # PGD-10 beside fast on a ViT in l2
        (5, 2, 24, True),
        (4, 2, 24, False),  # two images are luck
        (21, 41, 100, False),
    ],
)
def test_another_attack_refutes_by_the_size_of_what_it_breaks_more(
    mine: int, theirs: int, of: int, refuted: bool
) -> None:
    reason = attack_checks.refuted(left(mine, of), left(theirs, of), 0.03, "fast")
    expected = (
        f"fast leaves {theirs} of {of} images right at eps 0.03, and this attack leaves {mine}: rely on fast"
    )
    assert (reason and str(reason)) == (expected if refuted else None)


def test_what_another_attack_breaks_counts_net_of_the_reverse() -> None:
    mine = left(50, 100)
    assert attack_checks.refuted(mine, ~mine, 0.03, "fast") is None


@pytest.mark.parametrize(
    ("mine", "noise", "right", "said"),
    [
        (100, 100, 128, True),  # as many as noise
        (93, 100, 128, True),  # a quarter more
        (92, 100, 128, False),
        (126, 126, 128, False),  # at a tiny eps: noise broke two
        (123, 123, 128, True),
        (124, 124, 128, False),
        (0, 0, 128, False),  # at a huge one: nothing is left to break
        (12, 12, 128, False),
        (13, 13, 128, True),
        (128, 120, 128, True),  # nothing, although noise broke eight
        (60, 120, 128, False),  # an attack that works
    ],
)
def test_an_attack_may_not_be_as_weak_as_noise(mine: int, noise: int, right: int, said: bool) -> None:
    reason = attack_checks.no_better_than_noise(left(mine), left(noise), left(right), 0.03)
    assert (reason is not None) == said
    if reason is not None:
        counts = (
            f"noise succeeds on {right - noise} of {right} images at eps 0.03,"
            f" and this attack on {right - mine}:"
        )
        assert str(reason).startswith(counts)


def test_images_wrong_from_the_start_are_broken_by_nobody() -> None:
    wrong_before = ~left(28)
    # Both break the four images that are right: too few to tell.
    assert attack_checks.no_better_than_noise(left(4), left(4), left(8), 0.03) is None
    assert attack_checks.no_better_than_noise(left(0), left(0), wrong_before, 0.03) is None


def test_nothing_is_said_by_chance() -> None:
    """Two equal attacks on an honest model differ by luck alone: no test fires in 2,000 draws of each."""
    random = np.random.default_rng(0)
    fired = 0
    for _ in range(2_000):
        one, other = random.random((2, 200)) < 0.5
        fired += comparisons.outdoes(one, other)
        fired += comparisons.more_than(int(random.binomial(200, 0.01)), 200, 0.01)
    assert fired <= 2_000 * 2 * comparisons.LEVEL * 2
