"""The files for CI services: their scripts run here, with a stand-in for the command."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from robustbench_tin.benchmarks.gate.ci_templates import CPU_WHEELS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "action.yml").exists(), reason="the files lie in a checkout only")

# Records its arguments, and ends with the exit code of ENDS_WITH.
STAND_IN = f"""#!{sys.executable}
import json, os, sys
with open("calls.json", "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
sys.exit(int(os.environ.get("ENDS_WITH", "0")))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for name in ("robust-tin", "python"):
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def run(script: str, place: Path, **environment: str) -> tuple[int, list[list[str]]]:
    """Run a step as the services do, and read the calls that it made."""
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=place,
        env={"PATH": path, **environment},
        check=False,
    )
    calls = place / "calls.json"
    return done.returncode, [json.loads(line) for line in calls.read_text().splitlines()]


def action() -> dict:
    return yaml.safe_load((ROOT / "action.yml").read_text())


def step(name: str) -> dict:
    return next(step for step in action()["runs"]["steps"] if step["name"] == name)


@pytest.mark.parametrize("ends_with", [0, 1, 2])
def test_the_action_hands_arguments_on_and_ends_as_the_check_does(place: Path, ends_with: int) -> None:
    code, calls = run(
        step("Check robustness")["run"],
        place,
        ARGUMENTS="--model\nmy package.model:build\n\n--max-drop\npgd*=0.02; echo $HOME\n",
        BASELINE="a baseline.json",
        SARIF="r.sarif",
        JUNIT="r.xml",
        GITHUB_OUTPUT=str(place / "output"),
        ENDS_WITH=str(ends_with),
    )
    assert code == ends_with
    assert calls == [
        [
            *("robust-tin", "check", "--model", "my package.model:build"),
            *("--max-drop", "pgd*=0.02; echo $HOME", "--baseline", "a baseline.json", "--github"),
            *("--sarif", "r.sarif", "--junit", "r.xml"),
        ]
    ]
    assert (place / "output").read_text() == f"exit-code={ends_with}\n"


@pytest.mark.parametrize("index", [CPU_WHEELS, ""])
@pytest.mark.parametrize(("told", "installed"), [("robustbench-tin==1.2",) * 2, ("", "/the action")])
def test_the_action_installs_what_it_is_told_to_and_else_itself(
    place: Path, told: str, installed: str, index: str
) -> None:
    script = step("Install robust-tin")["run"]
    code, calls = run(script, place, INSTALL=told, OWN="/the action", TORCH_INDEX=index)
    extra = ["--extra-index-url", index] if index else []
    assert (code, calls) == (0, [["python", "-m", "pip", "install", "--quiet", *extra, installed]])
    # The service reads defaults before it knows where the action lies.
    assert not any("github." in str(each.get("default")) for each in action()["inputs"].values())


def test_the_action_installs_for_the_cpu_and_caches_what_it_installs(place: Path) -> None:
    assert action()["inputs"]["torch-index"]["default"] == CPU_WHEELS
    names = [each["name"] for each in action()["runs"]["steps"]]
    assert names == ["Find the cache of pip", "Cache packages", "Install robust-tin", "Check robustness"]
    assert all(step(name)["if"].startswith("inputs.install != 'none'") for name in names[:3])
    cache = step("Cache packages")
    assert cache["uses"].startswith("actions/cache@")
    assert cache["with"]["key"].startswith(cache["with"]["restore-keys"])
    found = step("Find the cache of pip")
    code, _ = run(found["run"], place, GITHUB_OUTPUT=str(place / "output"))
    assert code == 0
    # The outputs that the cache step uses.
    outputs = {line.partition("=")[0] for line in (place / "output").read_text().splitlines()}
    text = str(cache["with"])
    used = {part.split(" ")[0] for part in text.split("steps.pip.outputs.")[1:]}
    assert used == outputs


def test_the_action_names_only_inputs_that_it_has() -> None:
    content = action()
    text = (ROOT / "action.yml").read_text()
    used = {part.split("}}")[0].strip() for part in text.split("${{ inputs.")[1:]}
    assert used == set(content["inputs"])
    assert content["runs"]["using"] == "composite"
    scripts = [each for each in content["runs"]["steps"] if "run" in each]
    assert all(each["shell"] == "bash" for each in scripts)
    # An input within a script would be run as part of it.
    assert all("${{" not in each["run"] for each in scripts)


def test_the_gitlab_template_checks(place: Path) -> None:
    job = yaml.safe_load((ROOT / "ci" / "robust-tin.gitlab-ci.yml").read_text())[".robust-tin-check"]
    variables = {**job["variables"], "ROBUST_TIN_CHECK": "runs/new --max-drop pgd*=0.02"}
    (place / "pgd-notes=0.02").touch()  # a file that the pattern fits
    code, calls = run("\n".join([*job["before_script"], *job["script"]]), place, **variables)
    assert code == 0
    assert calls == [
        ["python", "-m", "pip", "install", "--quiet", "--extra-index-url", CPU_WHEELS, "robustbench-tin"],
        [
            *("robust-tin", "check", "runs/new", "--max-drop", "pgd*=0.02"),
            *("--baseline", "robustness-baseline.json", "--junit", "robustness.xml", "--markdown"),
            "robustness.md",
        ],
    ]
    assert job["artifacts"]["reports"]["junit"] == "robustness.xml"
    assert job["variables"]["PIP_CACHE_DIR"] == f"$CI_PROJECT_DIR/{job['cache']['paths'][0]}"


def test_the_pre_commit_hook_is_the_command() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert shlex.split(hook["entry"]) == ["robust-tin", "check"]
    assert hook["language"] == "python"
    assert hook["pass_filenames"] is False


def test_scripts_are_clean() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    template = yaml.safe_load((ROOT / "ci" / "robust-tin.gitlab-ci.yml").read_text())[".robust-tin-check"]
    steps = [each["run"] for each in action()["runs"]["steps"] if "run" in each]
    for script in (*steps, *template["before_script"], *template["script"]):
        done = subprocess.run(
            [shellcheck, "--shell=bash", "-"], input=script, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout
