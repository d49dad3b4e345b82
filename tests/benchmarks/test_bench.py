"""The runner: the files of a run, and that a stopped run continues exactly from its last state."""

import json
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from wrong_variants import comparisons

from robustbench_tin import bench
from robustbench_tin.attacks.acceleration import variants as variants
from robustbench_tin.benchmarks.cells import judge_cell, measure_cell, train_cell
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs import kept_files
from robustbench_tin.benchmarks.runs.records import Record, columns
from robustbench_tin.errors import RobustTinError, RunError
from robustbench_tin.progress import LinesReporter
from robustbench_tin.training.loop import train as real_train

TIMES = ["seconds", "train_seconds"]


def without_times(run: Run) -> pd.DataFrame:
    return run.records.drop(columns=TIMES)


@pytest.fixture
def trained_cells(monkeypatch):
    """Seeds of the cells that were trained, in order."""
    cells = []

    def counting(*args, **options):
        cells.append(options["seed"])
        return real_train(*args, **options)

    monkeypatch.setattr(train_cell, "train", counting)
    return cells


def test_records_of_a_run(small):
    run = bench(**small, defenses="none,augment", seeds="0,1")
    records = run.records
    assert list(records.columns) == columns(Record)
    assert not any("digest" in name for name in records.columns)
    assert len(records) == 4 * 5
    assert (records["status"] == "ok").all()
    assert (records["n"] == 24).all()
    clean = records[records["attack"] == "clean"]
    assert len(clean) == 4
    assert (clean["eps"] == 0).all()
    assert set(records["attack"]) == {"clean", "fgsm", "pgd:steps=2"}
    for name in ("top1", "top5"):
        assert records[name].between(0, 1).all()
        assert (records[f"{name}_low"] <= records[name]).all()
        assert (records[name] <= records[f"{name}_high"]).all()
    assert (records["top5"] >= records["top1"]).all()
    learned = clean[clean["defense"] == "none"]
    assert learned["above_chance"].all()


def test_accuracies_are_the_means_of_the_outcomes(small):
    run = bench(**small)
    cell = next(run.plan.cells())
    for row in run.records.to_dict("records"):
        outcomes = run.outcomes(cell, row["attack"], row["eps"])
        assert len(outcomes) == row["n"]
        assert outcomes["top1"].mean() == row["top1"]
        assert outcomes["top5"].mean() == row["top5"]
    assert run.complete


def test_passes_are_counted(small):
    records = bench(**small).records.set_index(["attack", "eps"])
    images = 24
    assert records.loc[("clean", 0.0), "forward_passes"] == images
    assert records.loc[("clean", 0.0), "backward_passes"] == 0
    # One gradient serves both budgets of FGSM; its forward pass is the clean measure's.
    both = records.loc["fgsm"]
    assert both["backward_passes"].sum() == images
    assert both["forward_passes"].sum() == 2 * images
    assert (records.loc["pgd:steps=2", "backward_passes"] == 2 * images).all()


@pytest.mark.parametrize(("attacks", "pgd"), [("fgsm", 0), ("pgd:steps=3,fgsm", 4)])
@pytest.mark.parametrize("trust", [False, True])
def test_each_pass_of_a_cell_is_made_once(small, monkeypatch, attacks, pgd, trust):
    """Counted at the model: the clean logits come with FGSM's gradient and are not computed again."""
    images, made, of_checks = 24, [], []
    real_asked, real_judge = variants.call_model, judge_cell.judge

    def asked(model, shown, **layout):
        made.append(len(shown))
        return real_asked(model, shown, **layout)

    def judge(*args, **options):
        before = sum(made)
        judgement = real_judge(*args, **options)
        of_checks.append(sum(made) - before)
        return judgement

    monkeypatch.setattr(variants, "call_model", asked)
    monkeypatch.setattr(judge_cell, "judge", judge)
    small |= {"attacks": attacks, "eps": "0.03", "curves": "none", "trust": trust}
    records = bench(**{**small, "deterministic": False, "search": "exact"}).records
    # FGSM's gradient and the measurements; eight images detect a model that is random at test time.
    assert sum(made) - sum(of_checks) == (2 + pgd) * images + 8
    assert records["forward_passes"].sum() == (2 + pgd) * images
    assert len(of_checks) == trust
    assert records["trust"].notna().sum() == trust * (len(records) - 1)


def test_the_clean_measure_is_the_same_with_any_attack(small, tmp_path):
    runs = [
        bench(**{**small, "attacks": attacks, "out": tmp_path / attacks}) for attacks in ("fgsm", "noise")
    ]
    shared, apart = (run.records.iloc[0] for run in runs)
    same = ["attack", "top1", "top5", "forward_passes", "backward_passes", "status", "above_chance"]
    pd.testing.assert_series_equal(shared[same], apart[same])
    cell = next(runs[0].plan.cells())
    one, other = (run.outcomes(cell, "clean", 0.0) for run in runs)
    pd.testing.assert_frame_equal(one, other)


def test_the_same_command_gives_the_same_table(small, tmp_path):
    first = bench(**small)
    second = bench(**{**small, "out": tmp_path / "again"})
    pd.testing.assert_frame_equal(without_times(first), without_times(second))
    assert (first.path / "results.md").read_text() == (second.path / "results.md").read_text()


def test_a_measure_does_not_depend_on_the_other_budgets(small, tmp_path):
    both = bench(**small).records
    alone = bench(**{**small, "eps": "0.03", "out": tmp_path / "alone"}).records
    key = ["attack", "eps"]
    merged = alone.merge(both, on=key, suffixes=("", "_both"))
    assert len(merged) == len(alone) == 3
    assert (merged["top1"] == merged["top1_both"]).all()


def test_a_finished_run_is_not_done_again(small, trained_cells):
    first = bench(**small)
    listener = LinesReporter()
    second = bench(**small, reporter=listener)
    assert trained_cells == [0]
    assert any("complete already" in line for line in listener.lines)
    pd.testing.assert_frame_equal(first.records, second.records)


class Stop(BaseException):
    """Ends a run as a kill would."""


@pytest.fixture(scope="module")
def undisturbed(small_options, tmp_path_factory) -> Run:
    """A run of two seeds, from its start to its end."""
    return bench(**{**small_options(tmp_path_factory.mktemp("whole") / "run"), "seeds": "0,1"})


@pytest.mark.parametrize(
    ("moment", "occurrence"),
    [
        *(("write_text", occurrence) for occurrence in (1, 2, 4)),
        *(("save_weights", occurrence) for occurrence in (1, 2)),
        *(("measure_from_clean", occurrence) for occurrence in (1, 2)),
        *(("measure_attack", occurrence) for occurrence in (1, 2, 4)),
        *(("train", occurrence) for occurrence in (1, 2)),
    ],
)
def test_a_run_stopped_anywhere_goes_on(
    small, tmp_path, monkeypatch, trained_cells, undisturbed, moment, occurrence
):
    options = {**small, "seeds": "0,1", "out": tmp_path / "stopped"}
    module = next(home for home in (kept_files, train_cell, measure_cell) if hasattr(home, moment))
    with monkeypatch.context() as patch:
        calls = 0
        real = getattr(module, moment)

        def stopping(*args, **keywords):
            nonlocal calls
            calls += 1
            if calls == occurrence:
                raise Stop
            return real(*args, **keywords)

        patch.setattr(module, moment, stopping)
        try:
            bench(**options)
        except Stop:
            pass
        else:
            assert calls < occurrence
    finished_before = [cell for cell in undisturbed.plan.cells() if _is_trained(tmp_path / "stopped", cell)]
    trained_cells.clear()
    resumed = bench(**options)
    assert not set(trained_cells) & {cell.seed for cell in finished_before}
    pd.testing.assert_frame_equal(without_times(resumed), without_times(undisturbed))
    assert (resumed.path / "results.md").read_text() == (undisturbed.path / "results.md").read_text()


def _is_trained(path: Path, cell: Cell) -> bool:
    return (path / "cells" / cell.slug / "training.json").exists()


def forms_of(run: Run) -> dict[str, list[str]]:
    return run.search_variants(next(run.plan.cells()))


@pytest.mark.parametrize("stopped", [False, True])
def test_measures_by_a_form_that_is_found_wrong_later_are_taken_again(small, tmp_path, monkeypatch, stopped):
    """Also if the run is stopped before that, and the finding is only known from its files."""
    options = {**small, "attacks": "pgd:steps=3,pgd:steps=4", "worst_case": True}
    with comparisons() as made:
        trusting = bench(**options)
    attacked = trusting.records[trusting.records["attack"] != "clean"]
    folded = "float32, channels-last, folded"
    assert set(attacked["search"]) == {folded}
    assert forms_of(trusting) == {"fixed": [folded, folded]}
    exact = bench(**{**options, "deterministic": False, "search": "exact", "out": tmp_path / "exact"})

    options["out"] = tmp_path / "found"
    with comparisons(wrong=len(made)), monkeypatch.context() as patch:
        calls, real = [], measure_cell.measure_attack

        def counted(model, batches, attack, *args, **keywords):
            calls.append(attack.spec)
            if stopped and len(calls) == 3:
                raise Stop
            return real(model, batches, attack, *args, **keywords)

        patch.setattr(measure_cell, "measure_attack", counted)
        try:
            found = bench(**options)
        except Stop:
            assert stopped
            found = bench(**options)
    again = ["pgd:steps=3"] * (2 if stopped else 1)
    assert calls == ["pgd:steps=3", "pgd:steps=4", *again]
    assert forms_of(found) == {"fixed": ["float32", "float32"], "refuted": [folded]}
    key = ["attack", "eps", "top1", "top5", "search"]
    pd.testing.assert_frame_equal(found.records[key], exact.records[key])
    told = found.records["remarks"].str.contains("gave other logits than the model at")
    assert set(found.records.loc[told, "attack"]) == {"pgd:steps=4"}
    listener = LinesReporter()
    bench(**options, reporter=listener)
    assert any("complete already" in line for line in listener.lines)


def test_another_plan_in_the_run_directory_is_refused(small):
    bench(**small)
    with pytest.raises(RunError, match="epochs: 4 there, 5 here") as caught:
        bench(**{**small, "epochs": 5})
    assert "\n" not in str(caught.value)


def test_a_directory_of_something_else_is_refused(small):
    small["out"].mkdir()
    (small["out"] / "thesis.tex").write_text("do not lose me")
    with pytest.raises(RunError, match="not empty"):
        bench(**small)
    assert (small["out"] / "thesis.tex").read_text() == "do not lose me"


def test_two_processes_do_not_share_a_run(small):
    run = bench(**small)
    with run.locked(), pytest.raises(RunError, match="another process"):
        bench(**small)


def test_a_damaged_record_is_named(small):
    run = bench(**small)
    file = next(run.path.glob("cells/*/measures/fgsm*.json"))
    file.write_text("{")
    with pytest.raises(RunError, match="damaged"):
        Run.load(run.path).tables  # noqa: B018
    listener = LinesReporter()
    assert bench(**small, reporter=listener).complete
    assert any("measured again, because" in line and file.name in line for line in listener.lines)


def test_a_dry_run_writes_nothing(small):
    listener = LinesReporter()
    assert bench(**small, dry_run=True, reporter=listener) is None
    assert not small["out"].exists()
    assert any("1 cell, 5 measurements" in line for line in listener.lines)


BROKEN_ATTACK = '''
from dataclasses import dataclass
from robustbench_tin import attacks


@attacks.register("always-broken")
@dataclass(frozen=True)
class Broken(attacks.Attack):
    """Raises."""

    def run(self, attacked, labels, ball, generator):
        raise RuntimeError("out of luck")
'''


def test_an_attack_that_raises_is_a_failed_measure(small, tmp_path):
    plugin = tmp_path / "broken_attack.py"
    plugin.write_text(BROKEN_ATTACK)
    run = bench(**{**small, "attacks": "always-broken,fgsm"}, plugins=[plugin])
    records = run.records
    broken = records[records["attack"] == "always-broken"]
    assert (broken["status"] == "failed: always-broken raised RuntimeError: out of luck").all()
    assert broken["top1"].isna().all()
    assert (records[records["attack"] == "fgsm"]["status"] == "ok").all()
    assert not run.complete
    text = run.tables[0].markdown()
    assert "failed" in text
    assert "out of luck" in text


def test_a_cell_whose_loss_explodes_is_failed_and_the_next_goes_on(small, tmp_path):
    plugin = tmp_path / "explosive.py"
    plugin.write_text(
        textwrap.dedent(
            """
            from dataclasses import dataclass
            from robustbench_tin import defenses

            @defenses.register("explosive")
            @dataclass(frozen=True)
            class Explosive(defenses.Defense):
                \"\"\"Loses its loss.\"\"\"

                def loss(self, classifier, images, labels, context):
                    return classifier(images).sum() * float("nan")
            """
        )
    )
    run = bench(**small, defenses="explosive,none", plugins=[plugin])
    records = run.records
    failed = records[records["defense"] == "explosive"]
    assert len(failed) == 5
    assert failed["status"].str.contains("no longer finite").all()
    assert failed["top1"].isna().all()
    assert (records[records["defense"] == "none"]["status"] == "ok").all()


def test_a_defense_runs_at_test_time_too(small, tmp_path):
    plugin = tmp_path / "blind.py"
    plugin.write_text(
        textwrap.dedent(
            """
            from dataclasses import dataclass
            from torch import nn
            from robustbench_tin import defenses

            class Blind(nn.Module):
                def __init__(self, classifier):
                    super().__init__()
                    self.classifier = classifier

                def forward(self, images):
                    return self.classifier(images * 0)

            @defenses.register("blind")
            @dataclass(frozen=True)
            class BlindDefense(defenses.Defense):
                \"\"\"Sees nothing.\"\"\"

                def wrap(self, classifier):
                    return Blind(classifier)
            """
        )
    )
    run = bench(**small, defenses="blind", plugins=[plugin])
    assert (run.records["top1"] == 1 / 3).all()
    assert not run.records["above_chance"].any()
    assert "not learned" in run.tables[0].markdown()


def test_weights_of_a_cell_start_another_run(small, tmp_path):
    first = bench(**small)
    weights = next(first.path.glob("cells/*/weights.safetensors"))
    second = bench(**{**small, "out": tmp_path / "second", "lr": 1e-9, "epochs": 1}, weights=weights)
    clean = second.records.iloc[0]["top1"]
    assert clean == first.records.iloc[0]["top1"]


def test_results_are_rendered_in_three_ways(small):
    run = bench(**small)
    rows = json.loads((run.path / "results.json").read_text())
    assert rows[0]["attack"] == "clean"
    assert rows[0]["eps"] == 0.0
    assert isinstance(rows[0]["n"], int)
    csv = pd.read_csv(run.path / "results.csv")
    np.testing.assert_allclose(csv["top1"], run.records["top1"])
    assert "| timm:test_resnet | none |" in (run.path / "results.md").read_text()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"models": "densnet169"}, "did you mean 'densenet169'"),
        ({"defenses": "fgsm_at"}, "did you mean 'fgsm-at'"),
        ({"defenses": "none+augment"}, "cannot be combined with another"),
        ({"defenses": "fgsm-at:eps=-1"}, "eps=-1.0; expected more than 0"),
        ({"attacks": "pgdd"}, "did you mean 'pgd'"),
        ({"attacks": "pgd:step=3"}, "did you mean 'steps'"),
        ({"attacks": "pgd:steps=many"}, "steps=many; expected int"),
        ({"attacks": "pgd:steps=0"}, "expected 1 or more"),
        ({"attacks": ""}, "empty list"),
        ({"eps": "-0.1"}, "expected 0 or more"),
        ({"eps": "much"}, "expected a number"),
        ({"eps": "nan"}, "expected 0 or more"),
        ({"eps": ""}, "empty list"),
        ({"norm": "l1"}, "expected linf or l2"),
        ({"seeds": "one"}, "whole numbers"),
        ({"epochs": 0}, "expected 1 or more"),
        ({"batch_size": -1}, "expected 1 or more"),
        ({"lr": 0.0}, "expected more than 0"),
        ({"device": "tpu9"}, "not available here"),
        ({"precision": "int8"}, "expected float32 or bfloat16"),
        ({"data": "nowhere"}, "nowhere"),
        ({"classes": 9}, "classes"),
        ({"eval_images": 10_000}, "10,000"),
        ({"models": "inceptionv3", "image_size": 32}, "expected 75 or more"),
        ({"weights": "missing.safetensors"}, "missing.safetensors"),
        ({"defenses": "bbox-crop"}, "without bounding boxes"),
        ({"plugins": ["missing.py"]}, "missing.py"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(small, changed, message):
    with pytest.raises(RobustTinError, match=message.replace("+", r"\+")) as caught:
        bench(**{**small, **changed})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not small["out"].exists()


def test_a_full_disk_loses_nothing(small, monkeypatch):
    """ENOSPC while a measurement is written: one line, and the same command continues from there."""
    import errno

    from robustbench_tin.atomic import replacing

    with monkeypatch.context() as patch:

        def full(path, text):
            if path.name.startswith("pgd"):
                with replacing(path):
                    raise OSError(errno.ENOSPC, "No space left on device")
            real(path, text)

        real = kept_files.write_text
        patch.setattr(kept_files, "write_text", full)
        with pytest.raises(RunError, match="No space left on device"):
            bench(**small)
    assert not list(small["out"].rglob(".*.json.*"))
    assert bench(**small).complete


def test_the_worst_case_is_what_every_attack_leaves(small):
    """A figure that one of them did not measure is of the others, and says so."""
    attacks = ["noise", "fgsm", "pgd:criterion=top1,steps=2"]
    run = bench(**{**small, "attacks": ",".join(attacks), "eps": "0.1,0.3", "worst_case": True})
    cell = next(run.plan.cells())
    for row in run.records[run.records["attack"] == "worst-case"].to_dict("records"):
        mine = run.outcomes(cell, "worst-case", row["eps"])
        theirs = [run.outcomes(cell, attack, row["eps"]) for attack in attacks]
        assert mine["top1"].equals(theirs[0]["top1"] & theirs[1]["top1"] & theirs[2]["top1"])
        assert mine["top5"].equals(theirs[0]["top5"] & theirs[1]["top5"])
        assert row["top1"] == mine["top1"].mean()
        of_rest, few_classes = row["remarks"].split("; ")
        assert of_rest == f"worst case: top-5 includes only noise, fgsm, without {attacks[2]}"
        assert few_classes.startswith("top-5 is meaningless: with 3 classes")
        assert (row["status"], row["mode"]) == ("ok", "right under every attack")
    left = run.records.groupby("attack")["top1"].mean()
    assert left["worst-case"] < left["clean"]


def test_a_worst_case_fails_with_any_of_its_attacks(small, write_plugin):
    plugin = write_plugin(BROKEN_ATTACK)
    run = bench(
        **{**small, "attacks": "fgsm,always-broken", "eps": "0.1", "worst_case": True}, plugins=[plugin]
    )
    (worst,) = run.records[run.records["attack"] == "worst-case"].to_dict("records")
    assert worst["status"].startswith("failed: always-broken failed: ")
    assert worst["top1"] is None or np.isnan(worst["top1"])


def test_a_defense_that_raises_fails_its_cell_and_not_the_others(small: dict, write_plugin) -> None:
    plugin = write_plugin(
        """
import sys
from dataclasses import dataclass
from robustbench_tin import defenses

@defenses.register("raising")
@dataclass(frozen=True)
class Raising(defenses.Defense):
    leave: bool = False

    def augment(self, images, labels, context):
        if self.leave:
            sys.exit(0)
        raise ValueError("not\\ntoday")
"""
    )
    run = bench(**{**small, "defenses": "raising,raising:leave=true,none", "plugins": [plugin]})
    raising, leaving, sound = run.records.groupby("defense", sort=False)["status"].unique()
    assert list(raising) == ["failed: ValueError: not today"]
    assert leaving[0].startswith("failed: SystemExit")
    assert list(sound) == ["ok"]
