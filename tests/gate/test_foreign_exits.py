"""Code from outside that ends the program: never a passed check, and the reports say so."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from robustbench_tin import evaluate
from robustbench_tin.cli import app as cli

MODEL = """
import torch
from torch import nn
{top}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        if self.calls > {calls}:
            {end}
        return images.mean(dim=(2, 3))[:, [2, 0]]  # blue, red

def build():
    {built}
    return Net()
"""


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blue and red squares, 16 px."""
    root = tmp_path_factory.mktemp("squares")
    for part in ("train", "val"):
        for name, colour in {"blue": (40, 60, 200), "red": (210, 50, 40)}.items():
            (root / part / name).mkdir(parents=True)
            for index in range(10):
                Image.new("RGB", (16, 16), colour).save(root / part / name / f"{index}.png")
    return root


@pytest.fixture
def check(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("ROBUST_TIN_CACHE", str(squares / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*, top: str = "", calls: int = 10**6, end: str = "pass", built: str = "pass") -> int:
        (tmp_path / "m.py").write_text(MODEL.format(top=top, calls=calls, end=end, built=built))
        options = f"--data {squares} --attacks fgsm --eps 0.01 --no-trust --min fgsm@0.01=0.9 --device cpu"
        files = "--junit j.xml --sarif s.json --markdown m.md --json r.json"
        command = ["robust-tin", "check", "--model", "m.py:build", *options.split(), *files.split()]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return int(exit_.value.code or 0)

    return call


def test_a_sound_model_passes_where_old_reports_said_otherwise(
    check: Callable[..., int], tmp_path: Path
) -> None:
    (tmp_path / "j.xml").write_text("old")
    assert check() == 0
    assert ET.parse(tmp_path / "j.xml").getroot().get("errors") == "0"


@pytest.mark.parametrize(
    "how",
    [
        {"calls": 3, "end": "raise SystemExit(0)"},
        {"calls": 0, "end": "raise SystemExit(0)"},
        {"calls": 3, "end": "import sys; sys.exit()"},
        {"calls": 3, "end": "raise KeyboardInterrupt"},
        {"calls": 3, "end": "import typer; raise typer.Exit(0)"},
        {"calls": 3, "end": "raise type('Stop', (BaseException,), {})()"},
        {"built": "raise SystemExit(0)"},
        {"built": "raise KeyboardInterrupt"},
        {"top": "raise SystemExit(0)"},
        {"top": "exit()"},
    ],
    ids=str,
)
def test_an_exit_is_no_verdict(
    how: dict, check: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "j.xml").write_text('<testsuites tests="1" failures="0" errors="0"/>')
    assert check(**how) == 2
    suites = ET.parse(tmp_path / "j.xml").getroot()
    assert int(suites.get("errors", "0")) >= 1
    assert json.loads((tmp_path / "r.json").read_text())["exit_code"] == 2
    assert json.loads((tmp_path / "s.json").read_text())["runs"][0]["results"]
    assert "CANNOT COMPARE" in (tmp_path / "m.md").read_text()
    shown = capsys.readouterr()
    assert "CANNOT COMPARE" in shown.out or "robust-tin: " in shown.err or "Stop" in shown.err


def test_a_mistake_leaves_reports_that_tell_it(check: Callable[..., int], tmp_path: Path) -> None:
    assert check(top="import no_such_module") == 2
    suites = ET.parse(tmp_path / "j.xml").getroot()
    (error,) = suites.iter("error")
    assert "no_such_module" in error.get("message", "")


def test_a_measure_whose_model_exits_has_failed() -> None:
    class Exits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(48, 3)
            self.calls = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls > 20:
                raise SystemExit(0)
            return self.head(images.flatten(1))

    images, labels = torch.rand(12, 3, 4, 4), torch.arange(12) % 3
    records = evaluate(Exits(), images, labels, attacks="pgd:steps=40", eps="0.1", trust=False).records
    assert records["status"].tolist()[1] == "failed: SystemExit: 0"
    assert records["top1"].isna().tolist() == [False, True]


def test_a_defense_that_exits_ends_no_bench_with_success(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "leave.py").write_text(
        "from dataclasses import dataclass\n"
        "from robustbench_tin import defenses\n\n"
        '@defenses.register("leave-the-program")\n'
        "@dataclass(frozen=True)\n"
        "class Leave(defenses.Defense):\n"
        '    """Leaves."""\n\n'
        "    def augment(self, *arguments, **named):\n"
        "        raise SystemExit(0)\n"
    )
    command = "robust-tin bench --models timm:test_resnet --defenses leave-the-program"
    options = (
        f"--plugin {tmp_path / 'leave.py'} --data {squares} --epochs 1 --device cpu --out {tmp_path / 'run'}"
    )
    monkeypatch.setattr(sys, "argv", [*command.split(), *options.split()])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    told = capsys.readouterr()
    assert "failed: SystemExit: 0" in " ".join(told.out.split())
    (line,) = told.err.splitlines()
    assert "measurements failed" in line
