"""The list of runs: each run's task, progress and robust accuracy; damaged ones do not stop it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from robustbench_tin import bench
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.reporting.run_list import plan_in_short, run_summaries, run_table
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.errors import RunError


@pytest.fixture(scope="module")
def runs(small_options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, half of it deeper, and a damaged one."""
    home = tmp_path_factory.mktemp("listed") / "runs"
    options = {**small_options(home / "whole"), "seeds": "0,1", "eps": "2/255,8/255", "trust": False}
    bench(**options)
    shutil.copytree(home / "whole", home / "deep" / "half")
    shutil.rmtree(next((home / "deep" / "half" / "cells").glob("*--s1")))
    shutil.copytree(home / "whole", home / "broken")
    (home / "broken" / "plan.json").write_text("{")
    return home


def test_each_run_says_what_it_does_how_far_it_is_and_how_robust(runs: Path) -> None:
    broken, half, whole = run_summaries(runs)
    assert [each.name for each in (broken, half, whole)] == ["broken", "deep/half", "whole"]
    assert (whole.state, half.state) == ("done", "1 of 2 cells")
    assert whole.plan.endswith("timm:test_resnet × none × 2 seeds; fgsm, pgd:steps=2 linf 2/255, 8/255")
    records = Run.load(runs / "whole").records.query("eps > 0.03")
    assert whole.best == max(records.groupby("seed")["top1"].min())
    assert "plan.json' is damaged" in broken.damage
    assert "\n" not in broken.damage


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_keeps_names_on_one_line(runs: Path, width: int) -> None:
    printer = Console(width=width)
    with printer.capture() as shown:
        printer.print(run_table(run_summaries(runs)))
    lines = shown.get().splitlines()
    assert any(line.startswith("deep/half  ") and "1 of 2 cells" in line for line in lines)
    assert "broken" not in shown.get()


def test_a_record_that_is_damaged_is_named(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "whole", tmp_path / "run")
    record = next((tmp_path / "run").rglob("fgsm@8-255.json"))
    record.write_text(record.read_text().replace('"seed": ', '"seed": 7'))
    (summary,) = run_summaries(tmp_path)
    assert record.name in summary.damage


def test_a_figure_that_is_doubted_or_at_chance_is_not_the_best(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Run.record
    for changed in ({"above_chance": False}, {"trust": _doubts()}):

        def record(run, cell, attack, eps, changed=changed):
            found = read(run, cell, attack, eps)
            return found.model_copy(update=changed) if cell.seed == 0 else found

        monkeypatch.setattr("robustbench_tin.benchmarks.runs.run_directory.RunDirectory.record", record)
        whole = run_summaries(runs)[-1]
        records = Run.load(runs / "whole").records.query("eps > 0.03 and seed == 1")
        assert whole.best == records["top1"].min()


def _doubts() -> tuple:
    from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
    from robustbench_tin.benchmarks.codes.verdict import Reason

    return (Reason.of(TrustCode.earlier, text="rises"),)


def test_a_missing_directory_is_an_error_and_an_empty_one_has_no_runs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no directory"):
        run_summaries(tmp_path / "nowhere")
    assert run_summaries(tmp_path) == []


def test_a_long_plan_is_cut_short(runs: Path) -> None:
    plan: Plan = Run.load(runs / "whole").plan
    many = plan.model_copy(update={"defenses": tuple(f"d{number}" for number in range(9)), "eps": (0.0,)})
    assert plan_in_short(many).endswith("× d0, d1, d2, d3, d4 and 4 more × 2 seeds; clean")
