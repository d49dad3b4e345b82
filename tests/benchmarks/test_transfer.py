"""Transfer: images made on each cell of a run, every other cell measured on them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner
from wrong_variants import comparisons

from robustbench_tin import bench, perturb
from robustbench_tin.attacks.acceleration import variant_cache
from robustbench_tin.benchmarks.cells import time_estimate as estimate
from robustbench_tin.benchmarks.cells.pass_times import PassTime, PassTimes, StepTime
from robustbench_tin.benchmarks.codes.status import OK, Status, StatusCode
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason, Trust
from robustbench_tin.benchmarks.commands import transfer as transfer_module
from robustbench_tin.benchmarks.commands.transfer import transfer
from robustbench_tin.benchmarks.measurement import transfer as passage
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.reporting.transfer_table import worst_sources
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.trust.transfer_check import doubt_beaten
from robustbench_tin.cli.app import app
from robustbench_tin.data import open_dataset
from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import DataError, InvalidSettingError, RobustTinError, RunError
from robustbench_tin.models import backbones, build_classifier, load_weights

IMAGES = 24
EPS = (0.03, 0.1)
TIMES = ["seconds", "train_seconds"]
QUICK = {"attack": "mi-fgsm:steps=2", "eps": "0.1"}
# An attack of fewer gradients searches with the model itself.
LONGER = {"attack": "mi-fgsm:steps=3", "eps": "0.1"}


@pytest.fixture(scope="module", autouse=True)
def _no_timing():
    """How long it will take is not asked here."""
    with pytest.MonkeyPatch.context() as patch:
        quick = PassTime(0.0, 1e-3)
        patch.setattr(
            estimate, "time_passes", lambda *given: PassTimes(quick, {"all": StepTime(quick, 1000)})
        )
        yield


@pytest.fixture(scope="module")
def trained(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three cells, one of which changes the image at test time."""
    path = tmp_path_factory.mktemp("transfer") / "run"
    bench(
        models="timm:test_resnet",
        defenses="none,augment,blur",
        data=str(small_folder),
        attacks="fgsm,pgd:steps=2",
        eps="0,0.03,0.1",
        epochs=4,
        device="cpu",
        trust=False,
        out=path,
    )
    return path


@pytest.fixture(scope="module")
def transferred(trained: Path, small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after a transfer; nothing may change it."""
    path = tmp_path_factory.mktemp("transferred") / "run"
    shutil.copytree(trained, path)
    transfer(path, data=str(small_folder))
    return path


@pytest.fixture
def fresh(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run to change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def done(transferred: Path, tmp_path: Path) -> Path:
    """A copy of the run after its transfer to change."""
    return Path(shutil.copytree(transferred, tmp_path / "run"))


def model_of(run: Run, cell) -> torch.nn.Module:
    classifier = build_classifier(
        backbones.get(cell.model),
        run.plan.classes,
        image_size=16,
        resize_to=None,
        pretrained=False,
        weights=None,
        seed=0,
    )
    load_weights(classifier, run.weights_file(cell))
    return parse_defense(cell.defense).wrap(classifier.to(memory_format=torch.channels_last)).eval()


def without_times(run: Run) -> pd.DataFrame:
    return run.transfers.records.drop(columns=TIMES)


def test_figures_are_those_of_perturb_and_the_targets_logits(transferred, small_folder):
    run = Run.load(transferred)
    val = open_dataset(str(small_folder)).val
    images, labels = torch.from_numpy(np.array(val.images)), torch.from_numpy(np.array(val.labels))
    models = {cell: model_of(run, cell) for cell in run.plan.cells()}
    moved = {
        cell: perturb(model, images, labels, "mi-fgsm", EPS, search="fixed") for cell, model in models.items()
    }
    records = list(run.transfers)
    assert len(records) == 3 * 2 * len(EPS)
    for record in records:
        assert record.source != record.target
        with torch.inference_mode():
            logits = models[record.target](moved[record.source][EPS.index(record.eps)])
        right = logits.argmax(dim=1) == labels
        np.testing.assert_array_equal(run.transfers.top1(record), right.numpy())
        assert record.top1 == right.double().mean().item()
        assert record.top5 == 1.0  # three classes
        assert record.n == IMAGES
        assert record.backward_passes == 10 * IMAGES
        assert record.forward_passes == 11 * IMAGES
    assert len({record.top1 for record in records}) > 1


def test_blocks_do_not_change_the_figures(fresh, small_folder, tmp_path, monkeypatch):
    whole = Path(shutil.copytree(fresh, tmp_path / "whole"))
    monkeypatch.setattr(transfer_module, "evaluation_batch_size", lambda device: 10)
    in_one = transfer(whole, **QUICK, data=str(small_folder))
    monkeypatch.setattr(passage, "_BLOCK_BYTES", 1)
    in_three = transfer(fresh, **QUICK, data=str(small_folder))
    pd.testing.assert_frame_equal(without_times(in_one), without_times(in_three))


def test_images_of_a_form_that_is_found_wrong_are_made_again_with_the_model(
    fresh, small_folder, tmp_path, monkeypatch
):
    """Targets that have seen some of them by then are measured on the new ones alone."""
    monkeypatch.setattr(transfer_module, "evaluation_batch_size", lambda device: 10)
    monkeypatch.setattr(passage, "_BLOCK_BYTES", 1)
    runs = {name: Path(shutil.copytree(fresh, tmp_path / name)) for name in ("exact", "found")}
    with monkeypatch.context() as patch:
        patch.setitem(variant_cache._FIXED, "fixed", variant_cache._FIXED["exact"])
        exact = transfer(runs["exact"], **LONGER, data=str(small_folder))
    with comparisons() as made:
        transfer(fresh, **LONGER, data=str(small_folder))
    # One of three sources: the comparison at its end, after all its blocks were measured.
    with comparisons(wrong=len(made) // 3) as compared:
        found = transfer(runs["found"], **LONGER, data=str(small_folder))
    assert len(compared) < len(made) + 3
    records = list(found.transfers)
    told = [record for record in records if "gave other logits than the model at" in str(record.remarks)]
    assert len(told) == 2
    assert {record.search for record in told} == {"float32"}
    assert len({record.source for record in told}) == 1
    for record in told:
        (same,) = (
            other
            for other in exact.transfers
            if (other.source, other.target) == (record.source, record.target)
        )
        assert (record.top1, record.n) == (same.top1, IMAGES)
        np.testing.assert_array_equal(found.transfers.top1(record), exact.transfers.top1(same))


def test_what_is_there_is_not_done_again(done, transferred, small_folder, monkeypatch):
    asked = []
    real = transfer_module.measure_transfer

    def counting(*arguments, **options):
        asked.append((arguments[5], list(arguments[6])))
        return real(*arguments, **options)

    monkeypatch.setattr(transfer_module, "measure_transfer", counting)
    transfer(done, data=str(small_folder))
    assert asked == []
    first, second, _ = Run.load(done).plan.cells()
    next(done.glob(f"transfer/*/{first.slug}/{second.slug}@0.1.json")).unlink()
    again = transfer(done, data=str(small_folder))
    assert asked == [(first, [second])]
    pd.testing.assert_frame_equal(without_times(again), without_times(Run.load(transferred)))
    assert (done / "transfer.md").read_text() == (transferred / "transfer.md").read_text()


class Stop(BaseException):
    """Ends a transfer as a kill would."""


@pytest.mark.parametrize("occurrence", [4, 9])
def test_a_transfer_stopped_anywhere_goes_on(fresh, transferred, small_folder, monkeypatch, occurrence):
    from robustbench_tin.benchmarks.runs import kept_files

    calls = 0
    real = kept_files.write_text

    def stopping(*arguments):
        nonlocal calls
        calls += 1
        if calls == occurrence:
            raise Stop
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(kept_files, "write_text", stopping)
        with pytest.raises(Stop):
            transfer(fresh, data=str(small_folder))
    assert len(list(Run.load(fresh).transfers)) == occurrence - 1
    resumed = transfer(fresh, data=str(small_folder))
    pd.testing.assert_frame_equal(without_times(resumed), without_times(Run.load(transferred)))
    for name in ("transfer.md", "results.md"):
        assert (fresh / name).read_text() == (transferred / name).read_text()


def test_a_cell_whose_weights_are_broken_is_failed_never_zero(fresh, small_folder):
    run = Run.load(fresh)
    broken, *others = run.plan.cells()
    run.weights_file(broken).write_bytes(b"no weights")
    run = transfer(fresh, **QUICK, data=str(small_folder))
    for record in run.transfers:
        if broken in (record.source, record.target):
            place = "source" if record.source == broken else "target"
            assert str(record.status).startswith(f"failed at the {place}: DamagedError")
            assert record.top1 is None
        else:
            assert record.status == OK
    table = run.transfers.tables[0]
    _, first, second, _ = (row[table.label_columns :] for row in table.rows)
    assert first == ("–", "failed", "failed")
    assert second[:2] == ("failed", "–")
    assert any("failed at the source" in note and "1 → 2, 1 → 3" in note for note in table.notes)
    # In the main table the cell has no figure, and the others' are of the source that is left.
    (first, *rest) = run.tables[0].rows
    assert first[-1] == "failed"
    assert not any("failed" in row for row in rest)
    worst = worst_sources(run.transfers.records)
    assert {row["source_defense"] for row in worst.rows[(others[0].model, "augment", 0)].values()} == {"blur"}


def test_a_cell_that_could_not_be_trained_is_failed_and_not_tried_again(fresh, small_folder, monkeypatch):
    run = Run.load(fresh)
    cell = next(run.plan.cells())
    run.save_trained(
        cell,
        run.trained(cell).model_copy(
            update={"status": Status.of(StatusCode.failed, why="the loss exploded")}
        ),
    )
    run = transfer(fresh, **QUICK, data=str(small_folder))
    statuses = {str(record.status) for record in run.transfers if cell in (record.source, record.target)}
    assert len(statuses) == 2
    assert all("the loss exploded" in status for status in statuses)
    monkeypatch.setattr(transfer_module, "measure_transfer", None)
    transfer(fresh, **QUICK, data=str(small_folder))


def test_the_tables_say_what_the_records_say(transferred):
    run = Run.load(transferred)
    records = run.transfers.records
    by_eps = run.transfers.tables
    assert len(by_eps) == len(EPS)
    cells = list(run.plan.cells())
    for eps, table in zip(EPS, by_eps, strict=True):
        assert f"eps {eps:g}" in table.title
        assert table.columns[table.label_columns :] == ("1", "2", "3")
        clean, *rows = (row[table.label_columns :] for row in table.rows)
        assert clean == tuple(f"{100 * run.record(cell, 'clean', 0.0).top1:.1f}" for cell in cells)
        for number, (source, row) in enumerate(zip(cells, rows, strict=True)):
            assert row[number] == "–"
            for target, text in zip(cells, row, strict=True):
                if target != source:
                    record = run.transfers.record("mi-fgsm", source, target, eps)
                    assert text == f"{100 * record.top1:.1f}"
    main = run.tables[0]
    assert main.columns[-2:] == ("worst transfer 0.03", "worst transfer 0.1")
    for cell, row in zip(cells, main.rows, strict=True):
        of_cell = records[(records["defense"] == cell.defense) & (records["eps"] == 0.1)]
        assert row[-1].startswith(f"{100 * of_cell['top1'].min():.1f} ")
    assert "worst transfer 0.1" in (transferred / "results.md").read_text()
    assert any(note.startswith("Made on timm:test_resnet + ") for note in main.notes)


def test_sources_that_did_not_learn_are_marked(done):
    run = Run.load(done)
    cell = next(run.plan.cells())
    run.save_record(cell, run.record(cell, "clean", 0.0).model_copy(update={"above_chance": False}))
    table = run.transfers.tables[0]
    assert table.label_columns == 2
    assert table.rows[1][1] == "not learned"
    assert {row[1] for row in table.rows} <= {"", "not learned"}


def test_the_worst_source_is_the_worst_of_all_attacks(done, small_folder):
    before = worst_sources(Run.load(done).transfers.records)
    run = transfer(done, attack="pgd:steps=3", eps="0.1", data=str(small_folder))
    after = worst_sources(run.transfers.records)
    assert set(run.transfers.records["attack"]) == {"mi-fgsm", "pgd:steps=3"}
    for key, by_eps in after.rows.items():
        assert by_eps[0.03] == before.rows[key][0.03]
        assert by_eps[0.1]["top1"] <= before.rows[key][0.1]["top1"]
    assert len(run.transfers.tables) == 3


def of_plan(run: Run, **changes: object) -> Run:
    """The run as if its plan had been another."""
    plan = run.plan.model_copy(update=changes)
    (run.path / "plan.json").write_text(plan.model_dump_json())
    for file in [*run.path.glob("cells/*/**/*.json"), *run.path.glob("transfer/*/*/*.json")]:
        content = json.loads(file.read_text().replace(run.plan.digest, plan.digest))
        file.write_text(json.dumps({name: content[name] for name in content if name != "digest"}))
    return Run.load(run.path)


def figures(rate: float) -> dict[str, float]:
    """The fields of a record with this accuracy."""
    return dict.fromkeys(("top1", "top1_low", "top1_high", "top5", "top5_low", "top5_high"), rate)


RISES = Reason.of(TrustCode.rising, lower=40.0, low=0.01, higher=46.9, high=0.03)


@pytest.mark.parametrize(
    "before", [(RISES,), (Reason.of(TrustCode.few_images, images=8, needed=20),), ()], ids=str
)
def test_figures_that_a_transfer_beats_are_doubted(done, before):
    run = of_plan(Run.load(done), trust=True)
    source, target, _ = run.plan.cells()
    all_right, all_wrong = np.ones(IMAGES, bool), np.zeros(IMAGES, bool)
    for attack in run.plan.attacks:
        record = run.record(target, attack, 0.1)
        kept = Measurement(0.1, all_right, all_right, OK, 0.0, 0, 0)
        told = {"trust": before, "above_chance": True, **figures(1.0)}
        run.save_measure(target, record.model_copy(update=told), kept)
    known = run.transfers.record("mi-fgsm", source, target, 0.1)
    lost = known.model_copy(update=figures(0.0))
    run.transfers.save(lost, Measurement(0.1, all_wrong, all_wrong, OK, 0.0, 0, 0))
    (line,) = doubt_beaten(run)
    assert "mi-fgsm succeeds and this attack fails on 24 of 24 images at eps 0.1" in line
    trust = run.record(target, "pgd:steps=2", 0.1).trust
    reason = f"transfer from {source.label} by mi-fgsm succeeds and this attack fails on 24 of 24 images"
    verdict = run.record(target, "pgd:steps=2", 0.1).verdict
    assert verdict.state is Trust.doubted
    assert verdict.doubts[-1].code is TrustCode.transfer_beats
    assert str(verdict.doubts[-1]).startswith(reason)
    assert verdict.doubts[:-1] == (before if before == (RISES,) else ())
    # One step claims nothing.
    assert run.record(target, "fgsm", 0.1).trust == before
    doubt_beaten(run)
    assert run.record(target, "pgd:steps=2", 0.1).trust == trust
    for other in run.transfers:
        if other.target == target:
            held = other.model_copy(update=figures(1.0))
            run.transfers.save(held, Measurement(other.eps, all_right, all_right, OK, 0.0, 0, 0))
    assert doubt_beaten(run) == []
    assert run.record(target, "pgd:steps=2", 0.1).trust == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"eval_images": 12},
            DataError,
            "3 classes, 48 training and 12 evaluated .*24 evaluated .*its bench",
        ),
        ({"classes": 2}, DataError, "got folder with 2 classes.* the run was made on folder with 3 classes"),
        ({"attack": "apgd-ce"}, InvalidSettingError, "criterion=none"),
        ({"attack": "mifgsm"}, RobustTinError, "did you mean 'mi-fgsm'"),
        ({"eps": "0"}, InvalidSettingError, "above 0"),
        ({"device": "tpu9"}, InvalidSettingError, "not available here"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(trained, small_folder, options, error, message):
    with pytest.raises(error, match=message) as caught:
        transfer(trained, **{"data": str(small_folder), **options})
    assert "\n" not in str(caught.value)
    assert not (trained / "transfer").exists()


def test_one_cell_is_refused(fresh, small_folder):
    run = Run.load(fresh)
    _, *others = run.plan.cells()
    for cell in others:
        shutil.rmtree(run.weights_file(cell).parent)
    with pytest.raises(RunError, match="1 of 3 cells trained and measured; transfer needs two or more"):
        transfer(fresh, data=str(small_folder))


def test_a_run_with_plugins_wants_them(fresh, small_folder):
    run = Run.load(fresh)
    plan = run.plan.model_copy(update={"plugins": ("noise.py 0123456789abcdef",)})
    (fresh / "plan.json").write_text(plan.model_dump_json())
    with pytest.raises(RunError, match=r"noise\.py 0123456789abcdef .*--plugin"):
        transfer(fresh, data=str(small_folder))


def test_the_command(fresh, small_folder):
    result = CliRunner().invoke(
        app,
        ["transfer", str(fresh), "--data", str(small_folder), "--attack", "pgd:steps=2", "--eps", "8/255"],
    )
    assert result.exit_code == 0, result.output
    assert "Transfer of pgd:steps=2" in result.output
    assert "1 timm:test_resnet + none, seed 0" in result.output
    assert (fresh / "transfer.md").exists()
