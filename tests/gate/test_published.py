"""Published figures beside measured ones: a stand-in for RobustBench's loader, and CIFAR-10's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from cifar_files import draw_cifar
from typer.testing import CliRunner

from robustbench_tin.benchmarks.gate.published import (
    Agreement,
    PublishedFigure,
    compare_published,
    parse_published,
)
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.cli.app import app
from robustbench_tin.errors import InvalidSettingError

# As robustbench.utils has it: a function of keywords that returns a network for pixels.
LOADER = """
import torch
from torch import nn


def load_model(model_name, dataset="cifar10", threat_model="Linf"):
    assert (model_name, dataset, threat_model) == ("Known2020", "cifar10", "Linf")
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    root = draw_cifar(tmp_path / "root", "cifar10", monkeypatch, rows=40)
    monkeypatch.setenv("ROBUST_TIN_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "leaderboard_stand_in"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "utils.py").write_text(LOADER)
    monkeypatch.syspath_prepend(tmp_path)
    return [
        *("evaluate", "--model", "leaderboard_stand_in.utils:load_model", "--name", "Known2020"),
        *("--model-arg", "model_name=Known2020", "--model-arg", "dataset=cifar10"),
        *("--model-arg", "threat_model=Linf", "--data", f"cifar10:root={root}", "--attacks", "fgsm"),
        *("--eps", "8/255", "--no-trust", "--out", str(tmp_path / "run")),
    ]


@pytest.mark.filterwarnings("ignore")
def test_a_leaderboards_figure_is_compared_by_the_interval(command: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*command, "--published", "clean=0.99"])
    assert done.exit_code == 0, done.output
    clean, attacked = Run.load(tmp_path / "run").iter_records()
    again = [*command, "--published", "clean=0.99", "--published", f"fgsm@8/255={attacked.top1}"]
    lines = [
        line for line in CliRunner().invoke(app, again).output.splitlines() if line.startswith("Published:")
    ]
    assert clean.top1 is not None
    assert len(lines) == 2
    assert f"Known2020, clean: {100 * clean.top1:.2f} % of 40 images" in lines[0]
    assert "published 99.00, above the interval" in lines[0]
    assert lines[1].startswith("Published: Known2020, fgsm@8/255: ")
    assert lines[1].endswith("inside the interval")
    figures = compare_published([clean, attacked], parse_published(["clean=0.99", "fgsm@8/255=0.0"]))
    assert [figure.agreement for figure in figures] == [Agreement.above, Agreement.inside]


@pytest.mark.filterwarnings("ignore")
def test_a_figure_that_fits_no_measure_is_refused_and_the_run_is_kept(
    command: list[str], tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, [*command, "--published", "pgd@8/255=0.5"])
    assert isinstance(done.exception, InvalidSettingError)
    wrong = "published 'pgd@8/255=0.5' matches no measurement"
    assert str(done.exception) == f"{wrong}; expected one of: clean, fgsm@8/255"
    assert Run.load(tmp_path / "run").complete


def test_a_published_figure_needs_a_measure() -> None:
    with pytest.raises(
        InvalidSettingError, match=r"published got '0\.5'; expected a measurement and a fraction"
    ):
        parse_published(["0.5"])


@pytest.mark.parametrize(
    ("published", "agreement"),
    [(0.39, Agreement.below), (0.41, Agreement.inside), (0.59, Agreement.inside), (0.61, Agreement.above)],
)
def test_the_interval_decides(published: float, agreement: Agreement) -> None:
    # Wilson's interval of 50 of 100 is 0.404 to 0.596.
    figure = PublishedFigure("net, clean", published, 0.5, 0.404, 0.596, 100)
    assert figure.agreement is agreement
