"""``robust-tin init``: from an empty project to a check that is green, and red once the model is spoiled."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from robustbench_tin.benchmarks.gate.ci_templates import CiService, ci_file, workflow
from robustbench_tin.benchmarks.gate.project_files import installed_with, require_free, rules_file
from robustbench_tin.benchmarks.gate.rules_file import find_rules
from robustbench_tin.cli.app import app
from robustbench_tin.errors import InvalidSettingError

MODEL = '''
import torch
from torch import nn


class Colours(nn.Module):
    """Says which channel is brightest."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, images):
        return 20 * images.mean(dim=(2, 3)) @ self.weight


def build():
    return Colours()
'''
WORDS = ["--model", "colours.py:build", "--weights", "model.safetensors", "--data", "images"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a model, its weights and 150 images, in which the command runs."""
    random = np.random.default_rng(0)
    for part, count in (("train", 1), ("val", 50)):
        for channel, name in enumerate(("a-red", "b-green", "c-blue")):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(90, 110, (8, 8, 3))
                pixels[..., channel] += random.integers(4, 60)
                Image.fromarray(pixels.astype(np.uint8)).save(
                    tmp_path / "images" / part / name / f"{index}.png"
                )
    (tmp_path / "colours.py").write_text(MODEL)
    save_file({"weight": torch.eye(3)}, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUST_TIN_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def run() -> Callable[..., Result]:
    return lambda *words, **named: CliRunner().invoke(app, list(words), **named)


def printed_check(said: str) -> list[str]:
    (line,) = [line for line in said.splitlines() if line.startswith("  robust-tin check ")]
    return shlex.split(line)[1:]


def test_the_printed_check_is_green_and_red_once_the_model_is_spoiled(
    project: Path, run: Callable[..., Result]
) -> None:
    made = run("init", *WORDS, "--yes")
    assert made.exit_code == 0, made.output
    written = ("robustness-baseline.json", "robust-tin.toml", ".github/workflows/robustness.yml")
    assert [line for line in made.output.splitlines() if line.startswith("Written: ")] == [
        f"Written: {name}" for name in written
    ]
    assert all((project / name).is_file() for name in written)
    command = printed_check(made.output)
    checked = run(*command)
    assert checked.exit_code == 0, checked.output
    assert "against robustness-baseline.json" in checked.output
    # CI runs the same command.
    steps = yaml.safe_load((project / written[2]).read_text())["jobs"]["check"]["steps"]
    (script,) = [step["run"] for step in steps if step.get("name") == "Check robustness"]
    assert shlex.split(script)[1 : 1 + len(command)] == command

    for spoiled in (
        torch.zeros(3, 3),  # learned nothing
        torch.tensor([[1.0, 0, 0], [0, 1, 0.9], [0, 0.9, 1]]),  # lost half of its robustness
    ):
        save_file({"weight": spoiled}, project / "model.safetensors")
        checked = run(*command)
        assert checked.exit_code == 1, checked.output
        assert "FAILED" in checked.output


def test_no_file_is_overwritten_unless_forced(project: Path, run: Callable[..., Result]) -> None:
    assert run("init", *WORDS, "--yes").exit_code == 0
    before = (project / "robustness-baseline.json").read_bytes()
    again = run("init", *WORDS, "--yes", "--eps", "0.02")
    assert isinstance(again.exception, InvalidSettingError)
    assert "robustness-baseline.json, robust-tin.toml, .github/workflows/robustness.yml exist already" in str(
        again.exception
    )
    assert (project / "robustness-baseline.json").read_bytes() == before
    assert run("init", *WORDS, "--yes", "--eps", "0.02", "--force").exit_code == 0
    assert (project / "robustness-baseline.json").read_bytes() != before


def test_without_a_terminal_what_is_missing_is_one_line(run: Callable[..., Result], project: Path) -> None:
    for words, missing in (([], "--model and --data"), (WORDS[:2], "--data")):
        for more in ([], ["--yes"]):
            refused = run("init", *words, *more)
            assert str(refused.exception) == (
                f"init needs {missing}; give them on the command line, or run init in a terminal to be asked"
            )
    assert not (project / "robust-tin.toml").exists()


def test_in_a_terminal_it_asks(
    project: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustbench_tin.cli.init._has_terminal", lambda: True)
    answers = ["colours.py:build", "model.safetensors", "images", "", "", "fgsm", "0.02", "gitlab"]
    made = run("init", "--no-trust", input="\n".join([*answers, ""]))
    assert made.exit_code == 0, made.output
    pipeline = yaml.safe_load((project / ".gitlab-ci.yml").read_text())
    command = printed_check(made.output)
    assert command[command.index("--attacks") + 1] == "fgsm"
    assert "--classes" not in command
    assert run(*command).exit_code == 0
    (script,) = pipeline["robustness"]["script"]
    assert shlex.split(script)[1 : 1 + len(command)] == command


def test_a_model_that_learned_nothing_is_no_baseline(project: Path, run: Callable[..., Result]) -> None:
    save_file({"weight": torch.zeros(3, 3)}, project / "model.safetensors")
    refused = run("init", *WORDS, "--yes", "--eval-images", "60")
    assert "is not above chance for 3 classes" in str(refused.exception)
    assert not (project / "robustness-baseline.json").exists()


def test_paths_in_the_project_are_written_as_ci_has_them(project: Path, run: Callable[..., Result]) -> None:
    words = [f"{project}/{word}" if number % 2 else word for number, word in enumerate(WORDS)]
    quick = ["--yes", "--no-trust", "--eval-images", "60", "--attacks", "fgsm", "--eps", "0.02"]
    made = run("init", *words, *quick, "--ci", "none")
    assert made.exit_code == 0, made.output
    assert str(project) not in " ".join(printed_check(made.output))
    assert not (project / ".github").exists()
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        made = run("init", *words, *quick)
    assert made.exit_code == 0, made.output
    assert f"Warning: {project}/images lies outside this directory" in made.output


PROJECT = '[project]\nname = "mine"\n'


@pytest.mark.parametrize("rest", ["", '\n[tool.other]\ntext = """\n[a]\n"""\n'])
def test_rules_go_to_a_project_that_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(PROJECT + rest)
    rules_file(Path("b.json"), force=False).write()
    content = tomllib.loads(Path("pyproject.toml").read_text())
    assert content.pop("tool").pop("robust-tin")["baseline"] == "b.json"
    assert Path("pyproject.toml").read_text().startswith(PROJECT + rest)
    assert find_rules().baseline == Path("b.json")
    with pytest.raises(InvalidSettingError, match=r"has rules in \[tool.robust-tin\] already"):
        rules_file(Path("c.json"), force=False)
    rules_file(Path("c.json"), force=True).write()
    assert find_rules().baseline == Path("c.json")
    assert tomllib.loads(Path("pyproject.toml").read_text())["project"] == {"name": "mine"}


def test_rules_that_stand_elsewhere_in_the_file_are_left_to_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text('tool.robust-tin.baseline = "a.json"\n')
    with pytest.raises(InvalidSettingError, match="by hand"):
        rules_file(Path("b.json"), force=True)


def test_rules_in_two_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("robust-tin.toml").write_text('baseline = "a.json"\n')
    assert find_rules().baseline == Path("a.json")
    Path("pyproject.toml").write_text(PROJECT)
    assert find_rules().baseline == Path("a.json")
    Path("pyproject.toml").write_text("[tool.robust-tin]\nlevel = 0.1\n")
    with pytest.raises(InvalidSettingError, match="expected one of them"):
        find_rules()


@pytest.mark.parametrize("key", ["require-power", "allow-untrained"])
def test_switches_and_the_spread_stand_in_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("robust-tin.toml").write_text(f"{key} = true\nassumed-spread = 0.03\n")
    rules = find_rules()
    assert getattr(rules, key.replace("-", "_"))
    assert rules.assumed_spread == 0.03
    for wrong in (f'{key} = "yes"', "assumed-spread = 0", "assumed-spread = 2"):
        Path("robust-tin.toml").write_text(wrong)
        with pytest.raises(InvalidSettingError, match=wrong.split(" ")[0]):
            find_rules()


def test_a_pipeline_of_the_projects_own_is_never_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ci_file(CiService.none) is None
    own = ci_file(CiService.gitlab)
    assert own == Path(".gitlab-ci.yml")
    own.write_text(workflow(CiService.gitlab, "robust-tin check", [], own))
    assert ci_file(CiService.gitlab) == own  # it wrote this one
    own.write_text("build:\n  script: make\n")
    assert ci_file(CiService.gitlab) == Path(".gitlab/robustness.gitlab-ci.yml")
    with pytest.raises(InvalidSettingError, match=r"\.gitlab-ci\.yml exists already"):
        require_free([own])


@pytest.mark.parametrize("service", [CiService.github, CiService.gitlab])
def test_ci_files_install_for_the_cpu_with_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: CiService
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("requirements.txt").touch()
    Path("pyproject.toml").write_text(PROJECT)
    place = ci_file(service)
    assert place is not None
    check = "robust-tin check --model 'my file.py:build' --max-drop 'pgd*=0.02'"
    content = yaml.safe_load(workflow(service, check, installed_with(), place))
    index = "https://download.pytorch.org/whl/cpu"
    if service is CiService.github:
        job = content["jobs"]["check"]
        assert job["env"]["PIP_EXTRA_INDEX_URL"] == index
        (python,) = [step for step in job["steps"] if "setup-python" in step.get("uses", "")]
        assert python["with"]["cache"] == "pip"
        assert python["with"]["cache-dependency-path"] == place.as_posix()
        install, check_step = (step["run"] for step in job["steps"] if "run" in step)
    else:
        job = content["robustness"]
        assert job["variables"]["PIP_EXTRA_INDEX_URL"] == index
        assert job["variables"]["PIP_CACHE_DIR"].endswith(job["cache"]["paths"][0])
        (install,), (check_step,) = job["before_script"], job["script"]
    assert shlex.split(install)[-4:] == ["$ROBUST_TIN_INSTALL", "-r", "requirements.txt", "."]
    assert check_step.startswith(check)
    for wrong in ("robust-tin check --model '${{ secrets.KEY }}'", "robust-tin check --model 'a\nb'"):
        with pytest.raises(InvalidSettingError, match="is not safe in a CI file"):
            workflow(service, wrong, [], place)


@pytest.mark.parametrize("service", [CiService.github, CiService.gitlab])
@pytest.mark.parametrize(
    ("options", "package"),
    [
        ("--model mine.py:build --data images", "robustbench-tin"),
        ("--model net.onnx --data images", "robustbench-tin[onnx]"),
        ("--model 'my net.ONNX' --data hf:OWNER/NAME", "robustbench-tin[hf,onnx]"),
    ],
)
def test_ci_files_install_the_extras_of_the_check(service: CiService, options: str, package: str) -> None:
    content = yaml.safe_load(workflow(service, f"robust-tin check {options}", [], Path("ci.yml")))
    job = (
        content["jobs"]["check"]["env"] if service is CiService.github else content["robustness"]["variables"]
    )
    assert job["ROBUST_TIN_INSTALL"] == package
