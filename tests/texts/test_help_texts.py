"""The help of the command and of each of its commands, at 80 columns."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import typer
from syrupy.assertion import SnapshotAssertion
from typer.testing import CliRunner

from robustbench_tin.cli.app import app

# Typer decides on frames and columns, so another version's layout is no change of our words.
LAYOUT_OF_TYPER = "0.29"
pytestmark = pytest.mark.skipif(
    not version("typer").startswith(f"{LAYOUT_OF_TYPER}."),
    reason=f"the stored layout is that of typer {LAYOUT_OF_TYPER}, and this is typer {version('typer')}",
)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No colours, even if a CI service asks for them."""
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", False)
    monkeypatch.setenv("COLUMNS", "80")


def help_of(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="robust-tin")
    assert result.exit_code == 0
    return "\n".join(line.rstrip() for line in result.output.splitlines())


def test_the_command(snapshot: SnapshotAssertion) -> None:
    assert help_of() == snapshot


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))
def test_each_command(command: str, snapshot: SnapshotAssertion) -> None:
    assert help_of(command) == snapshot
