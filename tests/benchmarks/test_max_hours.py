"""A run with a limit of hours stops between measurements, names the missing ones, and can be continued."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from robustbench_tin import bench
from robustbench_tin.benchmarks.cells.time_limit import TimeLimit
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.current_part import note_current
from robustbench_tin.benchmarks.runs.run_state import Progress, last_end, run_state
from robustbench_tin.errors import OutOfTimeError
from robustbench_tin.training.checkpoint import Checkpoint, Saved

TIMES = ["seconds", "train_seconds"]


def test_a_part_begins_if_it_ends_in_time_at_the_measured_pace() -> None:
    limit = TimeLimit(time.monotonic() + 100)
    limit.require(80)
    with pytest.raises(OutOfTimeError):
        limit.require(95)  # without anything to spare
    limit.measured(10, 20)
    limit.require(40)
    with pytest.raises(OutOfTimeError, match="176 s are needed"):
        limit.require(80)
    TimeLimit.of_hours(None).require(1e12)


def test_another_process_has_the_seconds_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = pickle.dumps(TimeLimit(time.monotonic() + 100, 10, 20))
    now = time.monotonic() + 5000
    monkeypatch.setattr(time, "monotonic", lambda: now)
    here = pickle.loads(sent)
    assert here.left == pytest.approx(100, abs=1)
    assert here.pace == 2


def test_training_ends_at_the_first_checkpoint_after_the_limit(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", minutes=1e9, stop_at=time.monotonic())
    assert checkpoint.due(epoch_over=False)
    with pytest.raises(OutOfTimeError):
        checkpoint.save(Saved({"model/weight": torch.ones(1)}, {"epoch": 1}))
    found = checkpoint.load(torch.device("cpu"))
    assert found is not None
    assert found.facts == {"epoch": 1}


class _Parts(TimeLimit):
    """Lets this number of questions pass; each cell asks once, then each of its parts."""

    allowed = 0

    def require(self, seconds: float) -> None:
        self.allowed -= 1
        if self.allowed < 0:
            raise OutOfTimeError("none is left")


@pytest.fixture(scope="module")
def whole(small_options: Callable[[Path], dict], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return bench(**small_options(tmp_path_factory.mktemp("whole") / "run"))


def test_a_run_stops_between_parts_and_continues(
    whole: Run, small: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(hours: float | None) -> TimeLimit:
        limit = _Parts()
        limit.allowed = 3
        return limit

    with monkeypatch.context() as patch:
        patch.setattr(TimeLimit, "of_hours", limited)
        with pytest.raises(OutOfTimeError, match=r"0 of 1 cell done; left: .*\(trained\); the same command"):
            bench(**small, max_hours=8)
    stopped = Run.load(small["out"])
    # The cell itself, its training, and the clean measurement with FGSM, which share passes.
    assert set(stopped.records["attack"]) == {"clean", "fgsm"}
    assert "fgsm" in (stopped.path / "results.md").read_text()
    (cell,) = run_state(stopped).cells
    assert (cell.progress, len(cell.taken)) == (Progress.waiting, 3)
    continued = bench(**small, max_hours=8)
    expected = whole.records.drop(columns=TIMES)
    assert continued.records.drop(columns=TIMES).equals(expected)


def test_a_run_that_is_out_of_time_at_once_trains_nothing(small: dict) -> None:
    with pytest.raises(OutOfTimeError, match="stopped after max-hours 1e-09"):
        bench(**small, max_hours=1e-9)
    assert Run.load(small["out"]).records.empty
    assert OutOfTimeError.exit_code == 75


def test_the_state_of_a_run_follows_from_its_files(whole: Run, tmp_path: Path) -> None:
    state = run_state(whole)
    assert [each.progress for each in state.cells] == [Progress.done]
    assert state.seconds_left == 0
    assert state.pace > 0
    cell = state.cells[0].cell
    expected = state.costs.cells[cell.slug]
    whole_time = sum(state.cells[0].measured(expected)[1:])
    records = whole.records
    assert whole_time == pytest.approx(records["seconds"].sum() + records["train_seconds"].iloc[0], rel=0.01)


def test_a_part_under_way_counts_until_it_is_done(small: dict, whole: Run) -> None:
    from robustbench_tin.benchmarks.reporting.run_progress import cell_table, ending

    with Run.begun(Path(small["out"]), whole.plan) as run:
        (cell,) = run.plan.cells()
        costs = run_state(whole).costs
        run.files.write(run.path / "costs.json", costs)
        note_current(run, cell, "train", 1000.0)
        state = run_state(run)
        assert state.running
        assert state.cells[0].progress is Progress.running
        assert state.seconds_left <= costs.cells[cell.slug].total
        assert "1 running; ends in about" in ending(state, _noon())
        assert cell_table(state).row_count == 1
    assert run_state(run).cells[0].progress is Progress.waiting


def test_a_clock_that_was_set_back_takes_nothing_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench_tin.benchmarks.runs.current_part import CurrentPart

    part = CurrentPart(part="train", seconds=100.0, began=time.time() + 86400)
    assert part.seconds_passed == 0
    assert CurrentPart(part="train", seconds=100.0, began=0.0).seconds_passed == 100


def test_the_last_of_works_side_by_side() -> None:
    assert last_end([3, 1, 2], 2) == 3
    assert last_end([], 2) == 0


def _noon():
    from datetime import datetime

    return datetime(2026, 1, 31, 12, 0)
