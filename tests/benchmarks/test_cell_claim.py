"""Two processes never write a cell at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from robustbench_tin.benchmarks.runs.cell_claim import ClaimedError, claimed
from robustbench_tin.errors import RunError

HOLDS = """
import sys
from pathlib import Path
from robustbench_tin.benchmarks.runs.cell_claim import claimed
with claimed(Path(sys.argv[1]), 0):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_claim_keeps_others_out_until_its_process_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "cell")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ClaimedError, match="another process works on"), claimed(tmp_path / "cell", 0):
            raise AssertionError("two processes have the cell")
        other.kill()
        other.wait()
        with claimed(tmp_path / "cell", 0):
            pass


def test_a_place_that_cannot_be_locked_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="choose another --out"), claimed(tmp_path / "file" / "cell", 0):
        pass
