"""Tracking a run: a tracker gets everything once, across interruptions, and its failures stop no run."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from robustbench_tin import bench
from robustbench_tin.benchmarks.evaluate_run import evaluate_run
from robustbench_tin.benchmarks.planning import checks
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.tracking import track
from robustbench_tin.benchmarks.tracking.mlflow_tracker import MlflowTracker
from robustbench_tin.benchmarks.tracking.tracker import Description, End
from robustbench_tin.cli.app import app
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.progress import LinesReporter
from robustbench_tin.training.checkpoint import Checkpoint
from robustbench_tin.training.curves import read_curves


class Stop(BaseException):
    """Ends a run as a kill would."""


@dataclass
class Recorded:
    """A tracked run that keeps everything it gets."""

    id: str
    described: Description
    parent: str | None
    epochs: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    ends: list[End] = field(default_factory=list)

    def log_epochs(self, points: Mapping[int, Mapping[str, float]]) -> None:
        self.epochs += [(epoch, dict(values)) for epoch, values in points.items()]

    def log_figures(self, values: Mapping[str, float], tags: Mapping[str, str]) -> None:
        self.figures |= values
        self.tags |= tags

    def attach(self, files: Sequence[Path]) -> None:
        self.files |= {file.name: file.read_text() for file in files}

    def end(self, how: End) -> None:
        self.ends.append(how)


class Recorder:
    """A tracker that keeps its runs."""

    name: ClassVar = "recorder"
    keeps_all: ClassVar = True
    place: ClassVar = "here"

    def __init__(self) -> None:
        self.runs: dict[str, Recorded] = {}

    def open(self, described: Description, known: str | None, parent: Recorded | None) -> Recorded:
        if known in self.runs:
            return self.runs[known]
        run = Recorded(f"run {len(self.runs)}", described, None if parent is None else parent.id)
        self.runs[run.id] = run
        return run

    @property
    def whole(self) -> Recorded:
        (run,) = [run for run in self.runs.values() if run.described.kind == "run"]
        return run

    def cell(self, seed: int) -> Recorded:
        (run,) = [run for run in self.runs.values() if run.described.settings.get("seed") == str(seed)]
        return run


@pytest.fixture
def quick(small: dict) -> dict:
    return {**small, "attacks": "fgsm", "eps": "0,8/255"}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(track, "trackers", lambda path, asked: [recorder])
    return recorder


def require_told(recorder: Recorder, run: Run) -> None:
    """Check that a tracker knows all curves and figures of a run, each once."""
    assert recorder.whole.parent is None
    for cell in run.plan.cells():
        tracked = recorder.cell(cell.seed)
        assert tracked.parent == recorder.whole.id
        points = read_curves(run.curves_file(cell))
        assert [epoch for epoch, _ in tracked.epochs] == [point.epoch for point in points] == [1, 2, 3, 4]
        assert [values["loss/train_loss"] for _, values in tracked.epochs] == [
            point.train_loss for point in points
        ]
        for attack, eps in run.measures(cell):
            record = run.record(cell, attack, eps)
            prefix = "clean" if eps == 0 else f"{attack}/eps-8-255"
            for name in ("top1", "top1_low", "top1_high", "top5", "top5_low", "top5_high"):
                assert tracked.figures[f"{prefix}/{name}"] == getattr(record, name)
            assert tracked.tags[f"{prefix}/status"] == "ok"
    for name in ("results.md", "results.csv", "results.json"):
        assert recorder.whole.files[name] == (run.path / name).read_text()


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_each_cell_is_a_tracked_run_in_that_of_the_run(quick: dict, recorder: Recorder, jobs: int) -> None:
    run = bench(**quick, seeds="0,1", jobs=jobs, threads=1)
    require_told(recorder, run)
    assert len(recorder.runs) == 3
    assert {run.described.group for run in recorder.runs.values()} == {"run"}
    assert [run.ends[-1] for run in recorder.runs.values()] == [End.finished] * 3
    settings = recorder.cell(1).described.settings
    assert (settings["model"], settings["eps"], settings["epochs"]) == ("timm:test_resnet", "0,8/255", "4")
    assert settings["plan_digest"] == run.plan.digest
    assert "seeds" not in settings


def test_the_verdict_is_a_tag(quick: dict, recorder: Recorder) -> None:
    run = bench(**{**quick, "trust": True, "epochs": 1})
    (cell,) = run.plan.cells()
    verdict = run.record(cell, "fgsm", 8 / 255).verdict
    tags = recorder.cell(0).tags
    assert tags["fgsm/eps-8-255/trust"] == str(verdict)
    assert tags["trust"] == verdict.state.value
    assert tags["status"] == "ok"


def test_a_resumed_run_continues_its_tracked_runs(
    quick: dict, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = Checkpoint.save, []

    def stopping(self: Checkpoint, what: object) -> None:
        # The curves of the third epoch are written by now, and its checkpoint is not.
        if len(saved) == 5:
            raise Stop
        saved.append(save(self, what))

    options = {**quick, "checkpoint_minutes": 0}
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", stopping)
        with pytest.raises(Stop):
            bench(**options)
    # The third epoch was told, and is trained again.
    assert [epoch for epoch, _ in recorder.cell(0).epochs] == [1, 2, 3]
    assert recorder.cell(0).ends == recorder.whole.ends == [End.stopped]
    run = bench(**options)
    require_told(recorder, run)
    assert len(recorder.runs) == 2
    assert recorder.cell(0).ends == recorder.whole.ends == [End.stopped, End.finished]

    recorder.whole.files.clear()
    bench(**options)  # nothing is left to do, and nothing to tell
    assert not recorder.whole.files
    assert len(recorder.cell(0).ends) == 2


def test_a_tracker_that_fails_costs_one_warning_and_catches_up_later(
    quick: dict, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise SystemExit("no route\nto host")

    warned = LinesReporter()
    with monkeypatch.context() as patch:
        patch.setattr(Recorded, "log_figures", unreachable)
        run = bench(**quick, reporter=warned)
    assert run.complete
    assert warned.warnings == [
        "warning: --recorder here: SystemExit: no route to host. The run continues; to send the missing"
        " data later, run the same command again."
    ]
    require_told(recorder, bench(**quick, reporter=warned))
    assert len(warned.warnings) == 1


@pytest.mark.parametrize(("keeps_all", "told"), [(True, [1, 2, 3, 4]), (False, [1, 2, 3, 4, 1, 2, 3, 4])])
def test_a_tracked_run_that_was_not_closed_is_told_its_curves_again(
    quick: dict, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, keeps_all: bool, told: list[int]
) -> None:
    """A client that keeps points in memory loses them if it dies with the process."""
    monkeypatch.setattr(Recorder, "keeps_all", keeps_all)
    with monkeypatch.context() as patch:
        patch.setattr(Recorded, "end", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        bench(**quick)
    bench(**quick)
    assert [epoch for epoch, _ in recorder.cell(0).epochs] == told
    assert recorder.cell(0).ends == [End.finished]


def test_a_tracker_that_hangs_does_not_hold_the_run(
    quick: dict, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    monkeypatch.setattr(Recorder, "open", lambda *_: answer.wait(60))
    monkeypatch.setattr(track, "_LAST", 0.2)
    warned = LinesReporter()
    try:
        assert bench(**quick, reporter=warned).complete
    finally:
        answer.set()
    (line,) = warned.warnings
    assert "--recorder here: the tracker does not answer. The run continues" in line


def test_evaluate_is_tracked(quick: dict, recorder: Recorder) -> None:
    trained = bench(**{**quick, "epochs": 1, "out": quick["out"].with_name("trained")})
    recorder.runs.clear()
    (cell,) = trained.plan.cells()
    run = evaluate_run(
        models=["timm:test_resnet"],
        weights=[trained.weights_file(cell)],
        data=quick["data"],
        attacks="fgsm",
        eps="8/255",
        device="cpu",
        out=quick["out"],
    )
    (measured,) = run.plan.cells()
    tracked = recorder.cell(0)
    assert tracked.figures["clean/top1"] == run.record(measured, "clean", 0.0).top1
    assert (tracked.epochs, tracked.ends) == ([], [End.finished])


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_client_that_is_not_installed_is_one_line(
    quick: dict, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    asked = {name: "there"}
    message = rf"{name}, which is not installed; .*pip install 'robustbench-tin\[{name}\]'"
    with pytest.raises(InvalidSettingError, match=message):
        bench(**quick, **asked)
    with pytest.raises(InvalidSettingError, match=message):
        evaluate_run(models=["timm:test_resnet"], **asked)
    assert not quick["out"].exists()


def test_wandb_may_stand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench_tin.benchmarks import bench as module

    asked: list[dict] = []
    monkeypatch.setattr(module, "bench", lambda **options: asked.append(options))
    for words in (["--wandb", "--seeds", "1"], ["--wandb", "mine"], ["--seeds", "1", "--wandb"]):
        assert CliRunner().invoke(app, ["bench", *words]).exit_code == 0
    assert [options["wandb"] for options in asked] == ["robust-tin", "mine", "robust-tin"]
    assert asked[0]["seeds"] == "1"


def test_no_password_is_shown_or_kept() -> None:
    assert MlflowTracker("https://me:secret@example.org:5000/x").place == "https://example.org:5000/x"
    assert MlflowTracker("sqlite:///runs.db").place == "sqlite:///runs.db"
