"""The first moments of a run directory: killed in them, or two processes at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.resumable_output import begun_output
from robustbench_tin.errors import RunError

KILLED = """
import os, signal, sys
from pathlib import Path

def hook(event, arguments):
    if event == {event!r} and {name!r} in str(arguments[{place}]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
{code}
"""
BEGIN_RUN = """
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.run import Run
plan = Plan.model_validate_json(Path(sys.argv[2]).read_text())
with Run.begun(Path(sys.argv[1]), plan):
    pass
"""
CLAIM = """
from robustbench_tin.benchmarks.runs.resumable_output import begun_output
with begun_output(Path(sys.argv[1]), {"a": 1}, ("images",)):
    pass
"""


@pytest.fixture
def plan() -> Plan:
    return Plan(
        data="drawn",
        data_fingerprint="aaaa",
        classes=10,
        train_images=20,
        eval_images=10,
        models=("mobilenet",),
        defenses=("none",),
        seeds=(0,),
        attacks=("fgsm",),
        eps=(0.0, 0.01),
        norm="linf",
        search="fixed",
        eot=1,
        oblivious=False,
        eight_bit=False,
        worst_case=False,
        epochs=(1,),
        batch_size=8,
        lr=None,
        image_size=None,
        pretrained=False,
        weights=None,
        device="cpu",
        precision=None,
        plugins=(),
    )


def killed(code: str, event: str, name: str, place: int, *arguments: Path) -> None:
    program = KILLED.format(event=event, name=name, place=place, code=code)
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("event", "name", "place"),
    [("os.rename", "plan.json", 1), ("open", ".lock", 0), ("open", "plan.json", 0)],
)
def test_a_run_killed_in_its_first_write_is_begun_again(
    event: str, name: str, place: int, plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / "plan").write_text(plan.model_dump_json())
    killed(BEGIN_RUN, event, name, place, tmp_path / "run", tmp_path / "plan")
    assert not (tmp_path / "run" / "plan.json").exists()
    with Run.begun(tmp_path / "run", plan) as run:
        assert Run.load(run.path).plan == plan
    assert {file.name for file in run.path.iterdir()} <= {"plan.json", ".lock"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_an_output_killed_in_its_first_write_is_begun_again(tmp_path: Path) -> None:
    killed(CLAIM, "os.rename", "manifest.json", 1, tmp_path / "out")
    with begun_output(tmp_path / "out", {"a": 1}, ("images",)) as output:
        assert output.result is None
    assert {file.name for file in (tmp_path / "out").iterdir()} <= {"manifest.json", ".lock"}


def test_a_second_process_hears_of_the_first(plan: Plan, tmp_path: Path) -> None:
    with (
        Run.begun(tmp_path / "run", plan),
        pytest.raises(RunError, match="another process is working on run"),
        Run.begun(tmp_path / "run", plan),
    ):
        pass
    with (
        begun_output(tmp_path / "out", {"a": 1}, ()),
        pytest.raises(RunError, match="another process is writing to"),
        begun_output(tmp_path / "out", {"a": 1}, ()),
    ):
        pass


def test_nothing_is_left_in_a_directory_of_something_else(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("not of a run")
    with pytest.raises(RunError, match="is not empty and is not a run"), Run.begun(tmp_path, plan):
        pass
    assert [file.name for file in tmp_path.iterdir()] == [".hidden"]


@pytest.mark.parametrize("values", [{"epochs": [1, 2]}, {"models": []}, {"eps": [-1.0]}, {"eval_images": 0}])
def test_a_plan_that_contradicts_itself_is_refused(values: dict, plan: Plan, tmp_path: Path) -> None:
    import json

    (tmp_path / "plan.json").write_text(json.dumps(plan.model_dump(mode="json") | values))
    with pytest.raises(RunError, match=r"plan\.json' is damaged or from another version") as caught:
        Run.load(tmp_path)
    assert "\n" not in str(caught.value)
