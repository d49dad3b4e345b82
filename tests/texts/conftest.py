"""The command called in this process, in a directory of its own: fast enough for many texts."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robustbench_tin.cli.app import main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the commands run; a module's fixtures fill it."""
    return tmp_path_factory.mktemp("texts")


@pytest.fixture
def answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
) -> Callable[[str], str]:
    """Runs a command line; returns it with its output, its error stream and its exit code."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("ROBUST_TIN_CACHE", str(place / "cache"))

    def run(line: str) -> str:
        monkeypatch.setattr(sys, "argv", line.split())
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        text = f"$ {line}\n{printed.out}{printed.err}exit code {ended.value.code}"
        # The directory, the time and the images' bytes are no part of the words.
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "YYYY-MM-DD hh:mm", text.replace(f"{place}/", ""))
        text = re.sub(r"\b[0-9a-f]{16}\b", "0123456789abcdef", text)
        return "\n".join(part.rstrip() for part in text.splitlines())

    return run
