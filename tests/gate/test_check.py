"""A check's verdicts on made-up results: each verdict, each question, and nothing skipped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up import IMAGES, candidate, figure, model, right, table

from robustbench_tin.benchmarks.gate.baseline import make_baseline
from robustbench_tin.benchmarks.gate.candidate import CandidateModel
from robustbench_tin.benchmarks.gate.check import check
from robustbench_tin.benchmarks.gate.ci_reports import FORMATS
from robustbench_tin.benchmarks.gate.comparison_mode import ComparisonMode
from robustbench_tin.benchmarks.gate.result import CheckReport, CheckStatus, FindingCode
from robustbench_tin.benchmarks.gate.rules import Rules
from robustbench_tin.benchmarks.gate.text_report import plain
from robustbench_tin.benchmarks.gate.text_report import table as shown_table
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.errors import InvalidSettingError


def rules(*max_drop: str, floors: tuple[str, ...] = ()) -> Rules:
    return Rules().then(max_drop, floors, None)


def fewer(hits: np.ndarray, lost: int, won: int = 0) -> np.ndarray:
    """The same results, except that some images are lost and some won."""
    changed = hits.copy()
    changed[np.flatnonzero(hits)[:lost]] = False
    changed[np.flatnonzero(~hits)[:won]] = True
    return changed


@pytest.fixture
def file(tmp_path):
    """A baseline of one seed."""
    return written(tmp_path, model(table()))


def written(tmp_path, *models: CandidateModel):
    path = tmp_path / "baseline.json"
    make_baseline([candidate(*models)]).write(path)
    return path


def verdicts(report: CheckReport) -> dict[str, str]:
    return {result.key.label: result.status.value for result in report.results}


def test_the_same_outcomes_are_not_worse(file):
    report = check(candidate(model(table())), file)
    assert set(verdicts(report).values()) == {"not worse"}
    assert report.exit_code == 0
    assert all(result.mode is ComparisonMode.same_weights for result in report.results)


@pytest.mark.parametrize(
    ("lost", "won", "status"),
    [
        (4, 0, "not worse"),  # exactly the tolerance of 1 point
        (8, 0, "worse"),  # p = 1/256, times three measures
        (5, 0, "not worse"),  # p = 1/32: not beyond chance once corrected
        (40, 32, "not worse"),  # as many lost, but won as well
        (0, 8, "better"),
    ],
)
def test_a_drop_must_be_larger_than_the_tolerance_and_beyond_chance(file, lost, won, status):
    now = table() | {("pgd", 0.03): fewer(right(200), lost, won)}
    report = check(candidate(model(now)), file)
    assert verdicts(report) == {CLEAN: "not worse", "fgsm@0.03": "not worse", "pgd@0.03": status}
    assert report.exit_code == (status == "worse")
    assert bool(report.update) == (status == "better")
    if status == "better":
        assert report.update == f"robust-tin baseline runs/made-up --out {file}"


def test_a_larger_tolerance_lets_it_pass_and_each_measure_has_its_own(file):
    twelve_lost = {("pgd", 0.03): fewer(right(200), 12), ("fgsm", 0.03): fewer(right(240), 12)}
    now = candidate(model(table() | twelve_lost))
    assert verdicts(check(now, file))["pgd@0.03"] == "worse"
    assert set(verdicts(check(now, file, rules("0.03"))).values()) == {"not worse"}
    report = check(now, file, rules("pgd*=0.03"))
    assert verdicts(report) == {CLEAN: "not worse", "fgsm@0.03": "worse", "pgd@0.03": "not worse"}


def test_floors_hold_whatever_the_baseline(file):
    report = check(candidate(model(table())), file, rules(floors=("pgd@0.03=0.6",)))
    assert verdicts(report)["pgd@0.03"] == "below its floor"
    assert report.exit_code == 1
    assert check(candidate(model(table())), None, rules(floors=("pgd@0.03=0.5",))).exit_code == 0
    alone = check(candidate(model(table())), None, rules(floors=("pgd@0.03=0.51",)))
    assert alone.exit_code == 1
    assert len(alone.results) == 3


def test_every_measure_is_reported_and_not_only_the_first_that_fails(file):
    now = {(CLEAN, 0.0): right(300), ("fgsm", 0.03): right(150), ("pgd", 0.03): right(100)}
    report = check(candidate(model(now)), file)
    assert set(verdicts(report).values()) == {"worse"}
    assert report.summary.endswith("3 measurements: 3 worse.")


def test_what_is_missing_new_failed_or_otherwise_measured_is_said(file):
    base = {key: hits for key, hits in table().items() if key[0] != "pgd"}
    report = check(candidate(model(base | {("square", 0.03): right(9)})), file)
    assert verdicts(report) == {
        CLEAN: "not worse",
        "fgsm@0.03": "not worse",
        "pgd@0.03": "cannot compare",
        "square@0.03": "new",
    }
    assert report.exit_code == 2

    otherwise = model(base | {("pgd:steps=5", 0.03): right(200)})
    (result,) = check(candidate(otherwise), file).of(CheckStatus.incomparable)
    assert "the attack settings differ, the candidate has pgd:steps=5@0.03" in result.reasons[0]

    failed = figure("pgd", 0.03, right(200), status="failed: out of memory")
    one = model(base)
    broken = CandidateModel(one.model, one.defense, 0, one.weights, (*one.figures, failed))
    (result,) = check(candidate(broken), file).of(CheckStatus.incomparable)
    assert "out of memory" in result.reasons[0]

    until = model(table(), mode="stop on success: top1")
    reasons = {f.key.label: f.reasons for f in check(candidate(until), file).of(CheckStatus.incomparable)}
    assert all(
        "the attack settings differ: mode fixed budget in the baseline" in r[0] for r in reasons.values()
    )


def test_another_data_set_cannot_be_compared(file):
    for facts in ({"measured_on": "cccc"}, {"measured_on": "", "data_fingerprint": "cccc"}):
        report = check(candidate(model(table(), **facts)), file)
        assert set(verdicts(report).values()) == {"cannot compare"}
        assert report.exit_code == 2
        assert "another data set" in report.results[0].reasons[0]


def test_a_model_that_is_not_there_cannot_be_compared(tmp_path):
    file = written(tmp_path, model(table()), model(table(), name="other"))
    report = check(candidate(model(table())), file)
    assert len(report.results) == 6
    assert len(report.of(CheckStatus.incomparable)) == 3
    assert report.exit_code == 2


def test_a_figure_that_is_suspicious_where_the_baselines_was_not_fails(file):
    now = model(table() | {("pgd", 0.03): right(390)})
    doubted = tuple(
        figure(f.key.attack, f.key.eps, f.hits, trust="gradients are zero on 40 % of images")
        if f.key.attack == "pgd"
        else f
        for f in now.figures
    )
    report = check(candidate(CandidateModel("net", "none", 0, "w0", doubted)), file)
    assert verdicts(report)["pgd@0.03"] == "suspicious"
    assert report.exit_code == 1
    assert any("look at changed activations" in cause for cause in report.hints)

    unlearned = model(table(), above_chance=False)
    assert check(candidate(unlearned), file).exit_code == 1


def doubted(hits, doubt, **facts) -> CandidateModel:
    """A model whose PGD figure is doubted."""
    figures = tuple(
        figure(attack, eps, outcomes, trust=doubt if attack == "pgd" else "unset", **facts)
        for (attack, eps), outcomes in hits.items()
    )
    return CandidateModel("net", "none", 0, "w0", figures)


def test_a_doubted_baseline_does_not_let_a_masked_gradient_pass_for_an_improvement(tmp_path):
    late = (
        "the attack still succeeded on 60 of 400 images in the last tenth of its budget: give it more steps"
    )
    file = written(tmp_path, doubted(table(), late))
    higher = table(pgd=390)
    masked = check(candidate(doubted(higher, "the gradient is zero or not finite on 90 of 400 images")), file)
    assert verdicts(masked)["pgd@0.03"] == "suspicious"
    assert masked.exit_code == 1
    # The same doubt with other counts: as before, and nothing to be proud of.
    again = check(candidate(doubted(higher, late.replace("60", "75"))), file)
    assert verdicts(again)["pgd@0.03"] == "not worse"
    assert again.exit_code == 0
    assert "as unreliable as in the baseline" in str(again.results)
    assert again.update == ""


def test_what_a_baseline_cannot_guard_is_said(tmp_path):
    for base, said in (
        (doubted(table(), "the gradient is zero on 90 of 400 images"), "own figures are unreliable"),
        (model(table(), above_chance=False), "clean accuracy in the baseline is not above chance"),
        (model(table(), trust=None), r"have no trust checks (fgsm@0.03, pgd@0.03)"),
        (doubted(table(), FEW), f"own figures are unchecked (pgd@0.03: {FEW.removeprefix('unchecked: ')})"),
    ):
        report = check(candidate(base), written(tmp_path, base), Rules().then(["0.2"], allow_untrained=True))
        assert report.exit_code == 0
        (warning,) = report.warnings
        assert said in warning


def test_unchecked_figures_beside_checked_ones_cannot_be_compared(file):
    report = check(candidate(model(table(), trust=None)), file)
    assert verdicts(report)["pgd@0.03"] == "cannot compare"
    assert "has no trust checks" in report.of(CheckStatus.incomparable)[0].reasons[0]


GRADIENTS = (
    "unchecked: the model gives no gradients, so only black-box attacks were tried: an attack on a"
    " differentiable substitute may succeed more often"
)
FEW = "unchecked: too few clean images are right: 8 of 400, and 10 are needed"


@pytest.mark.parametrize(
    ("before", "now", "pgd", "status"),
    [
        # A way round the checks is as suspicious as their findings would have been.
        ("ok", GRADIENTS, 200, "suspicious"),
        (GRADIENTS, GRADIENTS, 200, "not worse"),
        (GRADIENTS, "ok", 200, "not worse"),
        (
            GRADIENTS,
            "unchecked: the model's logits are too coarse to check its gradients",
            200,
            "suspicious",
        ),
        # Earlier versions left the verdict blank if there was no check.
        (None, GRADIENTS, 200, "not worse"),
        (None, GRADIENTS, 390, "better"),
        # How many images are right is judged by the clean figure; a rise must not hide behind it.
        ("ok", FEW, 200, "not worse"),
        ("ok", FEW, 390, "suspicious"),
        (FEW, FEW.replace("8", "7"), 390, "better"),
        # Only a rise of a doubted figure counts against it.
        ("accuracy rises", GRADIENTS, 200, "not worse"),
        ("accuracy rises", GRADIENTS, 390, "suspicious"),
        # A doubt wins.
        ("ok", f"accuracy rises; {FEW}", 200, "suspicious"),
    ],
)
def test_a_figure_must_be_checked_as_far_as_the_baselines_was(tmp_path, before, now, pgd, status):
    file = written(tmp_path, doubted(table(), before))
    report = check(candidate(doubted(table(pgd=pgd), now)), file)
    assert verdicts(report)["pgd@0.03"] == status
    assert report.exit_code == (1 if status == "suspicious" else 0)
    (result,) = (result for result in report.results if result.key.attack == "pgd")
    if now.startswith("unchecked"):
        reason = now.removeprefix("unchecked: ")
        held = f"unchecked for a reason that the baseline does not have: {reason}"
        assert (held in result.reasons) == (status == "suspicious")
        # It is said in any case.
        assert list(map(str, result.unchecked)) == ([] if status == "suspicious" else [reason])
        assert reason in plain(report)


def test_a_model_without_gradients_is_told_where_to_look(file):
    report = check(candidate(doubted(table(), GRADIENTS)), file)
    assert any("look at changed activations" in cause for cause in report.hints)
    assert "! unchecked for a reason" in plain(report)


def test_a_floor_holds_for_an_unchecked_figure_and_the_check_says_so():
    report = check(candidate(doubted(table(), GRADIENTS)), None, rules(floors=("pgd@0.03=0.2",)))
    assert report.exit_code == 0
    assert verdicts(report)["pgd@0.03"] == "not worse"
    assert f"? {GRADIENTS} (net + none, pgd@0.03)" in plain(report)
    assert "50.0?" in plain(report)


def test_what_did_not_learn_in_both_is_said_to_be_unchecked(tmp_path):
    chance = "unchecked: clean accuracy is not above chance"
    unlearned = doubted(table(), chance, above_chance=False)
    report = check(candidate(unlearned), written(tmp_path, unlearned), Rules(allow_untrained=True))
    assert report.exit_code == 0
    assert f"? {chance} (net + none, pgd@0.03)" in plain(report)
    # It is one reason, not two, if the baseline learned something.
    report = check(candidate(unlearned), written(tmp_path, model(table())))
    (result,) = (result for result in report.results if result.key.attack == "pgd")
    (reason,) = result.reasons
    assert reason.startswith("clean accuracy, 85 % of 400 images, is not above chance for 10 classes")


@pytest.mark.parametrize("of_baseline", [True, False])
def test_a_model_that_learned_nothing_fails_unless_allowed(tmp_path, of_baseline):
    unlearned = candidate(model(table(), above_chance=False))
    file = written(tmp_path, model(table(), above_chance=of_baseline))
    for path, asked in ((file, Rules()), (None, rules(floors=("pgd@0.03=0",)))):
        report = check(unlearned, path, asked)
        assert set(verdicts(report).values()) == {"untrained"}
        assert report.exit_code == 1
        allowed = check(unlearned, path, asked.then(allow_untrained=True))
        assert set(verdicts(allowed).values()) == {"not worse"}
        assert allowed.exit_code == 0
    # A figure that got worse on top of it is reported as worse, and nothing counts as better.
    report = check(candidate(model(table(clean=200, pgd=390), above_chance=False)), file)
    assert verdicts(report) == {CLEAN: "worse", "fgsm@0.03": "untrained", "pgd@0.03": "untrained"}
    assert report.update == ""


def test_one_training_of_several_that_learned_nothing_fails_and_is_named(tmp_path):
    trainings = [model(table(), seed=seed, weights=f"w{seed}") for seed in range(3)]
    file = written(tmp_path, *trainings)
    trainings[2] = model(table(), seed=2, weights="w9", above_chance=False)
    report = check(candidate(*trainings), file, forced_mode=ComparisonMode.retrained)
    assert set(verdicts(report).values()) == {"untrained"}
    assert all("seed 2: clean accuracy" in result.reasons[-1] for result in report.results)


def test_too_few_images_to_show_chance_say_nothing_of_the_training():
    """Two of two right are a quarter of all guesses of 2 classes: no model could do better."""
    few = candidate(model({(CLEAN, 0.0): np.ones(2, dtype=bool)}, above_chance=False))
    (clean,) = few.models[0].figures
    for classes, status in ((2, "not worse"), (1000, "untrained")):
        changed = replace(clean, record=clean.record.model_copy(update={"classes": classes}))
        of = replace(few, models=(replace(few.models[0], figures=(changed,)),))
        assert verdicts(check(of, None, rules(floors=("clean=0.5",)))) == {CLEAN: status}


def test_power_can_be_required(file):
    asked = Rules().then(require_power=True)
    report = check(candidate(model(table())), file, asked)
    (finding,) = report.findings
    assert finding.code is FindingCode.low_power
    assert finding.text.startswith(
        f"the check cannot detect a drop as large as the tolerance: {IMAGES} images detect a drop of 1 point"
    )
    assert report.exit_code == 1
    assert report.summary == "Robustness check FAILED: 3 measurements: 3 not worse; too little power."
    assert not report.warnings  # it is said once
    assert f"! {finding.text}" in plain(report).splitlines()
    seen = check(candidate(model(table())), file, asked.then(["0.1"]))
    assert (seen.findings, seen.exit_code) == ((), 0)
    none = check(candidate(model(table())), file, asked.then(["0"]))
    assert "no number of images can detect a drop of 0 points (3 measurements)" in none.findings[0].text
    retrained = check(candidate(model(table(), seed=1, weights="new")), file, asked.then(["0.05"]))
    assert "the baseline's one seed cannot detect" in retrained.findings[0].text
    with pytest.raises(InvalidSettingError, match="require-power got no baseline"):
        check(candidate(model(table())), None, asked.then((), ["clean=0.1"]))


def test_only_what_moved_is_shown(file):
    now = candidate(model(table() | {("pgd", 0.03): fewer(right(200), 12), ("square", 0.03): right(9)}))
    report = replace(check(now, file), only_moved=True)
    assert [row[2] for row in shown_table(report).rows] == ["pgd@0.03", "square@0.03"]
    assert "2 of 4 measurements did not get worse: not shown." in plain(report)
    assert "| fgsm@0.03 |" not in FORMATS["markdown"](report)
    assert "| pgd@0.03 |" in FORMATS["markdown"](report)
    same = replace(check(candidate(model(table())), file), only_moved=True)
    assert "3 of 3 measurements did not get worse" in FORMATS["markdown"](same)
    assert "| model |" not in FORMATS["markdown"](same)
    # Programs get all.
    assert FORMATS["json"](report) == FORMATS["json"](replace(report, only_moved=False))


def test_a_retraining_is_judged_by_the_spread_of_the_seeds(tmp_path):
    counts = (200, 206, 196, 203, 198)
    file = written(
        tmp_path, *(model(table(pgd=c), seed=seed, weights=f"w{seed}") for seed, c in enumerate(counts))
    )
    near = check(candidate(model(table(pgd=180), seed=9, weights="new")), file)
    assert verdicts(near)["pgd@0.03"] == "not worse"
    assert all(result.mode is ComparisonMode.retrained for result in near.results)
    far = check(candidate(model(table(pgd=100), seed=9, weights="new")), file)
    assert verdicts(far)["pgd@0.03"] == "worse"
    assert "neither plan nor data changed" in far.hints[0]
    assert any("spread of 5 seeds" in fact for fact in far.facts)


def test_one_seed_says_what_it_cannot_know(file):
    new = candidate(model(table(pgd=185), seed=1, weights="new"))
    report = check(new, file)
    assert verdicts(report)["pgd@0.03"] == "cannot compare"
    assert report.exit_code == 2
    assert "make the baseline of more seeds, or allow a larger --max-drop" in str(report.results)
    assert any(
        "an assumed standard deviation of 2 points (--assumed-spread)" in fact for fact in report.facts
    )
    assert check(new, file, rules("0.5")).exit_code == 0
    assert check(new, file, forced_mode=ComparisonMode.same_weights).exit_code == 1


@pytest.mark.parametrize(
    ("spread", "status", "code"), [(0.02, "worse", 1), (0.1, "cannot compare", 2), (0.001, "worse", 1)]
)
def test_a_drop_that_no_plausible_seed_explains_is_worse(file, spread, status, code):
    """It loses 25 points, less than two standard errors if seeds deviate by ten points."""
    new = candidate(model(table(pgd=100), seed=1, weights="new"))
    report = check(new, file, Rules().then(assumed_spread=spread))
    assert verdicts(report) == {CLEAN: "not worse", "fgsm@0.03": "not worse", "pgd@0.03": status}
    assert report.exit_code == code
    assert f"{100 * spread:g} points" in next(r for r in report.results if r.status.grave).reasons[0]
    assert f"deviate by {100 * spread:g} points" in plain(report)


def test_two_retrainings_that_collapsed_are_worse_than_one_seed(file):
    """Student's t alone has one degree of freedom here, and finds nothing."""
    both = [model(table(pgd=30), seed=seed, weights=f"new {seed}") for seed in (1, 2)]
    report = check(candidate(*both), file)
    assert verdicts(report)["pgd@0.03"] == "worse"
    (result,) = report.failed
    assert result.spread.tests == 2


def test_a_check_beside_one_seed_says_what_it_can_see(file):
    report = check(candidate(model(table(), seed=1, weights="new")), file)
    assert report.exit_code == 0
    (warning,) = report.warnings
    assert warning.startswith(
        "the baseline's one seed cannot detect a re-training that loses 1 point (3 measurements)"
    )
    assert "if seeds deviate by 2 points" in warning


def test_what_changed_stands_beside_what_fell(file):
    worse = model(table() | {(CLEAN, 0.0): fewer(right(340), 60)})
    hints = check(candidate(worse), file).hints
    assert "normalisation, value range, channel order" in hints[0]
    noisy = model(table(pgd=100), weights="other")
    hints = check(candidate(noisy), file, forced_mode=ComparisonMode.same_weights).hints
    assert "the weights (other) differ from the baseline's (w0)" in hints[0]
    longer = check(candidate(model(table()), epochs="9"), file)
    assert any("epochs was 8, is 9" in fact for fact in longer.facts)


def test_a_check_warns_where_so_few_images_cannot_see_the_tolerance(file):
    (warning,) = check(candidate(model(table())), file).warnings
    assert f"{IMAGES} images detect a drop of 1 point in as few as" in warning
    assert not check(candidate(model(table())), file, rules("0.1")).warnings


def test_rules_that_fit_nothing_are_refused(file):
    with pytest.raises(
        InvalidSettingError, match=r"rule 'pdg=0.2' matches no measurement; expected one of: net/none/clean"
    ):
        check(candidate(model(table())), file, rules(floors=("pdg=0.2",)))
    with pytest.raises(InvalidSettingError, match="nothing to compare"):
        check(candidate(model(table())), None)
