"""The loop's settings on their way through a bench: into the plan, the loop and the checkpoint."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from toys import build_toy_model, draw_toy_images

from robustbench_tin import bench, evaluate
from robustbench_tin.benchmarks.cells import train_cell
from robustbench_tin.benchmarks.cells.validation_metrics import RobustnessMetrics
from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.data import open_dataset
from robustbench_tin.errors import InvalidSettingError, RobustTinError, RunError
from robustbench_tin.models import backbones, build_classifier, save_weights
from robustbench_tin.models.published_head import head_rows
from robustbench_tin.threat import ThreatModel
from robustbench_tin.training.checkpoint import Checkpoint
from robustbench_tin.training.loop import Recipe
from robustbench_tin.training.loop import train as real_train
from robustbench_tin.training.recipe import SETTINGS

OTHERS = {
    "optimizer": "sgd",
    "weight_decay": 0.01,
    "schedule": "cosine",
    "clip_norm": 2.0,
    "label_smoothing": 0.1,
    "average": "ema",
    "clean_epochs": 1,
    "early_stop": 3,
    "train": "head:epochs=1,all:rate=0.5",
    "head_rate": 4.0,
    "progressive": 0.5,
}


@pytest.fixture
def quick(small: dict) -> dict:
    return {**small, "attacks": "fgsm", "eps": "0.03"}


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Recipe and probe of each training."""
    seen: list[tuple] = []

    def watched(*args, **options):
        seen.append((args[3], options["probe"]))
        return real_train(*args, **options)

    monkeypatch.setattr(train_cell, "train", watched)
    return seen


def test_a_setting_has_one_default() -> None:
    of_recipe = {field.name: field.default for field in fields(Recipe)}
    of_bench = {field.name: field.default for field in fields(BenchConfig)}
    assert set(OTHERS) == set(SETTINGS)
    for name in SETTINGS:
        assert of_bench[name] == of_recipe[name] == Plan.model_fields[name].default
        assert OTHERS[name] != of_recipe[name]


def test_every_setting_reaches_the_loop_and_the_plan(quick: dict, trainings: list[tuple]) -> None:
    run = bench(**quick, **OTHERS, defenses="pgd-at:eps=0.02,steps=1")
    ((recipe, probe),) = trainings
    for name, value in OTHERS.items():
        assert getattr(recipe, name) == getattr(run.plan, name) == value
    assert recipe.lr == 0.1
    assert probe.threat == ThreatModel("linf", 0.02)
    assert run.complete


def test_what_is_not_trained_against_a_budget_is_looked_at_with_the_largest(
    quick: dict, trainings: list[tuple]
) -> None:
    bench(**{**quick, "eps": "0,0.01,0.02"})
    assert trainings[0][1].threat == ThreatModel("linf", 0.02)


def test_a_changed_setting_is_refused_with_the_difference(quick: dict) -> None:
    bench(**quick)
    for name, value in OTHERS.items():
        shown = f"{value:g}" if type(value) is float else value
        with pytest.raises(RunError, match=f"{name}: .* there, {shown} here") as caught:
            bench(**{**quick, name: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimizer": "lion"}, "optimizer got 'lion'; expected adamw, adam or sgd"),
        ({"weight_decay": -1.0}, "weight-decay got -1.0; expected 0 or more"),
        ({"schedule": "linear"}, "schedule got 'linear'; expected one-cycle, cosine, step or constant"),
        ({"clip_norm": -1.0}, "clip-norm got -1.0; expected 0 or more"),
        ({"label_smoothing": 1.0}, "label-smoothing got 1.0; expected 0 or more, below 1"),
        ({"average": "mean"}, "average got 'mean'; expected none, ema or swa"),
        ({"clean_epochs": 5}, "clean-epochs got 5; expected 0 to 4, the epochs"),
        ({"early_stop": 0}, "early-stop got 0; expected 1 or more"),
        ({"early_stop": 1, "average": "swa"}, "give one of them, or 'ema'"),
        ({"early_stop": 1, "eps": "0"}, "needs a budget to attack with.*; give an eps"),
        ({"train": "tail"}, "train got 'tail' in 'tail'; expected head, last:N or all"),
        ({"train": "head:epochs=4,all"}, "which does not divide 4 epochs"),
        (
            {"models": "inceptionv3-final", "defenses": "none,augment+trades"},
            "backbone 'inceptionv3-final' has a sigmoid per class; give the backbone output=softmax",
        ),
        ({"head": "old"}, "head got 'old'; expected new or published"),
        ({"head": "published"}, "without published weights; also give --weights FILE or --pretrained"),
        ({"head_rate": 0.0}, "head-rate got 0.0; expected more than 0"),
        ({"progressive": 1.5}, "progressive got 1.5; expected more than 0, at most 1"),
        (
            {"models": "inceptionv3", "progressive": 0.5, "epochs": 10},
            "progressive got 0.5, but image size 40 does not fit backbone 'inceptionv3'; expected 75 or more",
        ),
        ({"checkpoint_minutes": -1.0}, "checkpoint-minutes got -1.0; expected 0 or more"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(quick: dict, changed: dict, message: str) -> None:
    with pytest.raises(RobustTinError, match=message) as caught:
        bench(**{**quick, **changed})
    assert "\n" not in str(caught.value)
    assert not quick["out"].exists()


def test_a_head_that_starts_from_the_published_one_knows_its_classes_untrained(
    small_folder: Path, tmp_path: Path
) -> None:
    """Its weights hardly move, so that its accuracy is the published network's among the data's classes."""
    data = tmp_path / "data"
    shutil.copytree(small_folder, data)
    for part in ("train", "val"):
        for colour, wnid in (("blue", "n02056570"), ("green", "n01443537"), ("red", "n01440764")):
            (data / part / colour).rename(data / part / wnid)
    published = build_classifier(backbones.get("timm:test_resnet"), 1000, image_size=16, seed=3).eval()
    save_weights(published, tmp_path / "published.safetensors")
    found = bench(
        models="timm:test_resnet",
        data=str(data),
        weights=tmp_path / "published.safetensors",
        head="published",
        train="head",
        lr=1e-12,
        epochs=1,
        attacks="noise",
        eps="0",
        trust=False,
        device="cpu",
        out=tmp_path / "run",
    )
    opened = open_dataset(str(data))
    rows = head_rows("published", opened.classes)
    with torch.no_grad():
        logits = published(torch.from_numpy(np.array(opened.val.images)).float() / 255)[:, rows]
    right = (logits.argmax(dim=1).numpy() == opened.val.labels).mean()
    assert found.records["top1"].iloc[0] == right
    assert found.plan.head == "published"


def test_a_published_head_needs_classes_of_imagenet(quick: dict, tmp_path: Path) -> None:
    published = build_classifier(backbones.get("timm:test_resnet"), 1000, image_size=16, seed=3)
    save_weights(published, tmp_path / "published.safetensors")
    weights = {"weights": tmp_path / "published.safetensors", "head": "published"}
    with pytest.raises(InvalidSettingError, match="class 'blue' of the data is not among the 1,000"):
        bench(**{**quick, "models": "timm:test_resnet", **weights})


class Stop(BaseException):
    """Ends a run as a kill would."""


def test_a_run_stopped_in_a_training_goes_on_from_its_checkpoint(
    quick: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**quick, "defenses": "free-at:replays=2", "average": "ema", "checkpoint_minutes": 0}
    undisturbed = bench(**options)
    options["out"] = tmp_path / "stopped"
    taken: list[int] = []
    save, step = Checkpoint.save, torch.optim.AdamW.step

    def stopping(self, saved) -> None:
        save(self, saved)
        taken.append(1)
        if len(taken) == 3:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", stopping)
        with pytest.raises(Stop):
            bench(**options)
    assert list(options["out"].rglob("checkpoint.safetensors"))
    steps: list[int] = []

    def counted(self, *args, **settings):
        steps.append(1)
        return step(self, *args, **settings)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    resumed = bench(**options)
    assert len(steps) == 8 - 2 * 3
    times = ["seconds", "train_seconds"]
    pd.testing.assert_frame_equal(
        resumed.records.drop(columns=times), undisturbed.records.drop(columns=times)
    )
    cell = next(resumed.plan.cells())
    weights = load_file(resumed.weights_file(cell))
    for name, value in load_file(undisturbed.weights_file(cell)).items():
        assert torch.equal(value, weights[name])
    for run in (resumed, undisturbed):
        assert not run.checkpoint_file(cell).exists()


def test_an_explosion_keeps_the_last_good_checkpoint_and_the_bench_goes_on(
    quick: dict, tmp_path: Path
) -> None:
    plugin = tmp_path / "explosive.py"
    plugin.write_text(
        textwrap.dedent(
            """
            from dataclasses import dataclass
            from robustbench_tin import defenses

            @defenses.register("explosive")
            @dataclass(frozen=True)
            class Explosive(defenses.Defense):
                \"\"\"Loses its loss in the second epoch.\"\"\"

                def loss(self, classifier, images, labels, context):
                    usual = super().loss(classifier, images, labels, context)
                    return usual * float("nan") if context.epoch == 1 else usual
            """
        )
    )
    run = bench(**quick, defenses="explosive,none", plugins=[plugin], checkpoint_minutes=0)
    explosive, plain = run.plan.cells()
    failed = str(run.trained(explosive).status)
    assert "no longer finite at step 1 of epoch 2" in failed
    assert run.checkpoint_file(explosive).exists()
    assert not run.checkpoint_file(plain).exists()
    assert str(run.trained(plain).status) == "ok"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_probe_agrees_with_evaluate(norm: str) -> None:
    model = build_toy_model().train()
    images, labels = draw_toy_images(60, seed=3)
    pixels = (images * 255).round().byte()
    eps = 0.005 if norm == "linf" else 0.1
    seen = RobustnessMetrics(ThreatModel(norm, eps), seed=5)(model, pixels, labels)
    assert model.training
    records = evaluate(
        model, pixels, labels, "fgsm,pgd:steps=5", eps=eps, norm=norm, seed=5, search="exact", trust=False
    ).records
    told = records[records["eps"] > 0].set_index("attack")["top1"]
    assert (seen.fgsm, seen.pgd) == (told["fgsm"], told["pgd:steps=5"])


def test_a_plan_of_before_these_settings_is_read_with_their_defaults(quick: dict) -> None:
    import json

    run = bench(**quick)
    file = run.path / "plan.json"
    plan = json.loads(file.read_text())
    for name in SETTINGS:
        del plan[name]
    file.write_text(json.dumps(plan))
    assert bench(**quick).complete


def test_reading_a_plan_imports_no_torch() -> None:
    code = "import sys, robustbench_tin.benchmarks.planning.plan; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
