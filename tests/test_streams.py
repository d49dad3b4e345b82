"""Standard output in any encoding, full, and closed by its reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustbench_tin.cli import app as cli
from robustbench_tin.cli import process as cli_process
from robustbench_tin.errors import RobustTinWarning

RUN = """
import sys
from robustbench_tin.cli import app as cli
def app(**options):
    print("45.0 ▼5.0 ▲1.0 日")
    print("more", flush=True)
    return {code}
cli.app = app
cli.main()
"""


def run(code: int, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", RUN.format(code=code)]
    return subprocess.run(command, check=False, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_what_an_encoding_lacks_is_replaced_and_falls_and_rises_stay_apart(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = run(0, stdout=subprocess.PIPE, env=environment)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode(encoding)
    assert shown.splitlines()[0] == "45.0 -5.0 +1.0 ?"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("code", "ends"), [(0, 2), (1, 1)])
def test_a_full_disk_is_one_line_and_no_success(code: int, ends: int) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(code, stdout=full)
    assert done.returncode == ends
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("robust-tin: cannot write to standard output: No space left")


@pytest.mark.skipif(os.name != "posix", reason="POSIX pipes")
@pytest.mark.parametrize("code", [0, 1])
def test_a_reader_that_goes_away_changes_no_verdict(code: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(code, stdout=writing)
    os.close(writing)
    assert done.returncode == code
    (line,) = done.stderr.decode().splitlines()
    assert "the reader of standard output has gone" in line


def test_warnings_of_this_package_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    with cli_process.told_warnings():
        warnings.warn("one\nline", RobustTinWarning, stacklevel=1)
    assert capsys.readouterr().err == "robust-tin: warning: one\\nline\n"


def test_the_streams_are_as_before_when_the_command_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout, sys.stderr
    monkeypatch.setattr(cli, "app", lambda **options: 0)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 0
    assert (sys.stdout, sys.stderr) == before
