"""A run's training curves: as a file and as TensorBoard events."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import pytest
from safetensors import safe_open

from robustbench_tin import bench
from robustbench_tin.benchmarks.planning import checks
from robustbench_tin.benchmarks.reporting.tensorboard import TAGS
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.training.checkpoint import Checkpoint
from robustbench_tin.training.curves import MEASURES, Point, read_curves


class Stop(BaseException):
    """Ends a run as a kill would."""


@pytest.fixture
def quick(small: dict) -> dict:
    return {**small, "attacks": "fgsm", "eps": "0,0.03"}


def points_of(run: Run) -> list[Point]:
    (cell,) = run.plan.cells()
    return read_curves(run.curves_file(cell))


def weights_of(run: Run) -> dict[str, object]:
    (cell,) = run.plan.cells()
    with safe_open(run.weights_file(cell), framework="pt") as file:
        return {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118


def test_they_end_where_the_measures_begin_and_leave_the_weights_alone(quick: dict, tmp_path: Path) -> None:
    """The slice is all 24 validation images here."""
    clean = bench(**quick)
    points = points_of(clean)
    assert [point.epoch for point in points] == [1, 2, 3, 4]
    assert points[-1].train_loss < points[0].train_loss
    measured = clean.records.set_index("attack")
    assert points[-1].val_top1 == pytest.approx(measured["top1"]["clean"], rel=1e-5)
    assert all(None not in astuple(point)[:7] for point in points)
    assert all(set(astuple(point)[7:]) == {None} for point in points)

    robust = bench(**{**quick, "curves": "robust", "out": tmp_path / "robust"})
    last = points_of(robust)[-1]
    assert last.val_fgsm == pytest.approx(measured["top1"]["fgsm"], rel=1e-5)
    assert last.val_pgd5 <= last.val_fgsm

    none = bench(**{**quick, "curves": "none", "out": tmp_path / "none"})
    assert not none.curves_file(next(none.plan.cells())).exists()
    assert weights_of(none) == weights_of(clean) == weights_of(robust)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"curves": "all"}, "curves got 'all'; expected none, clean or robust"),
        ({"curves": "none", "tensorboard": True}, "both --tensorboard and --curves none"),
        (
            {"curves": "robust", "eps": "0"},
            "curves robust needs a budget to attack with, .*'none' has none",
        ),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(quick: dict, changed: dict, message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        bench(**{**quick, **changed})
    assert not quick["out"].exists()


def test_what_is_not_installed_is_one_line(quick: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(InvalidSettingError, match=r"tensorboard, which is not installed; .*pip install"):
        bench(**quick, tensorboard=True)


def test_a_resumed_run_s_events_are_its_curves(quick: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {**quick, "tensorboard": True, "checkpoint_minutes": 0}
    save, saved = Checkpoint.save, []

    def stopping(self: Checkpoint, what: object) -> None:
        # The curves of the epoch are written by now, and the checkpoint is of the epoch before.
        if len(saved) == 2:
            raise Stop
        saved.append(save(self, what))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", stopping)
        with pytest.raises(Stop):
            bench(**options)
    run = bench(**options)
    points = points_of(run)
    assert [point.epoch for point in points] == [1, 2, 3, 4]
    there = EventAccumulator(str(run.events_directory(next(run.plan.cells()))))
    there.Reload()
    for name in MEASURES:
        expected = [
            (point.epoch, getattr(point, name)) for point in points if getattr(point, name) is not None
        ]
        told = there.Scalars(TAGS[name]) if expected else []
        assert [event.step for event in told] == [epoch for epoch, _ in expected]
        assert [event.value for event in told] == pytest.approx([value for _, value in expected], rel=1e-4)
    assert sorted(there.Tags()["scalars"]) == sorted(TAGS[name] for name in MEASURES[:6])
