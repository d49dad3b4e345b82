"""Every code block of the pages for authors of plug-ins, run to the letter and in its order."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from robustbench_tin import attacks, defenses
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.registry import load_plugin
from robustbench_tin.testing import check_attack

HOW_TO = Path(__file__).resolve().parent.parent / "docs" / "how-to"
PAGES = ("write-an-attack.md", "write-a-defense.md", "add-a-data-set.md")
# The caller's own model and images, which the page takes for granted.
PRELUDE = """
from robustbench_tin.testing import toy_problem
model, images, labels = (getattr(toy_problem(), name) for name in ("model", "images", "labels"))
"""


@dataclass(frozen=True)
class Block:
    """A code block, and the name of the file that the text before says to save it as."""

    language: str
    text: str
    file: str | None


def blocks() -> list[Block]:
    page = "\n".join((HOW_TO / name).read_text(encoding="utf-8") for name in PAGES)
    found = []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
        before = page[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
        name = re.search(r"Save this as\s`([\w.]+)`:$", before)
        found.append(Block(match[1], match[2], name[1] if name else None))
    return found


def commands() -> list[ParameterSet]:
    """The commands that need no data; a plan that is only printed differs little from one that runs."""
    found = [block.text for block in blocks() if block.language == "sh" and "DATA" not in block.text]
    return [pytest.param(text, marks=[pytest.mark.slow] * ("--print-plan" in text)) for text in found]


def saved() -> dict[str, str]:
    return {block.file: block.text for block in blocks() if block.file}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the page's files, which Python imports from."""
    for name, text in saved().items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in saved():
        sys.modules.pop(name.removesuffix(".py"), None)


def test_every_block_is_of_a_kind_that_is_run_here() -> None:
    assert {block.language for block in blocks()} == {"python", "sh", "text", "toml"}
    assert set(saved()) == {
        "dlr_steps.py",
        "test_dlr_steps.py",
        "dlr_search.py",
        "noise.py",
        "sign_at.py",
        "stripes.py",
    }


def test_the_python_blocks(here: Path) -> None:
    importlib.invalidate_caches()
    for block in blocks():
        if block.language == "python" and not block.file:
            names: dict[str, object] = {}
            exec(PRELUDE + block.text, names)
            if "records" in names:
                assert list(names["records"]["attack"].unique()) == ["clean", "fgsm", "dlr-steps:steps=5"]
                assert (names["records"]["status"] == "ok").all()


def test_checking_takes_five_lines() -> None:
    checks = [
        block.text for block in blocks() if "check_attack(" in block.text or "check_defense(" in block.text
    ]
    assert len(checks) == 3
    assert all(len(text.splitlines()) <= 5 for text in checks)


@pytest.mark.parametrize("command", commands())
def test_the_commands(here: Path, command: str) -> None:
    binaries = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        f"set -e\n{command}",
        shell=True,
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    if "pytest" in command:
        assert re.search(r"^\d\d passed", result.stdout, flags=re.MULTILINE)
    else:
        assert re.search("dlr-steps|sign-at|noise:sigma=0.1|[Ss]tripes", result.stdout)


def test_the_message_of_a_broken_rule(tmp_path: Path) -> None:
    message = next(block.text for block in blocks() if " must " in block.text)
    text = saved()["dlr_steps.py"]
    line = "            gradient = attacked.gradient(points, labels, self.loss)\n"
    hidden = f"            try:\n    {line}            except Exception:\n                return points\n"
    assert line in text
    (tmp_path / "hides_errors.py").write_text(text.replace(line, hidden))
    load_plugin(tmp_path / "hides_errors.py")
    with pytest.raises(AssertionError) as caught:
        check_attack("dlr-steps:steps=3")
    assert str(caught.value) == message.strip()


def test_the_message_of_a_refusal(tmp_path: Path) -> None:
    message = next(block.text for block in blocks() if "cannot be registered" in block.text)
    text = saved()["dlr_steps.py"].replace(
        "run(self, attacked, labels, ball, generator)", "run(self, model, images, labels, eps)"
    )
    path = tmp_path / "dlr_steps.py"
    path.write_text(text)
    with pytest.raises(InvalidSettingError) as caught:
        load_plugin(path)
    assert str(caught.value).replace(str(path), path.name) == message.strip()


def test_the_entry_points_are_groups_that_are_read() -> None:
    (text,) = [block.text for block in blocks() if block.language == "toml"]
    groups = set(tomllib.loads(text)["project"]["entry-points"])
    assert groups == {attacks.registry._group, defenses.registry._group}
