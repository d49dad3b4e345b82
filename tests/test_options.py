"""Options: their bounds, their way to the command line, and the page that lists them."""

from __future__ import annotations

import math
import re
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from robustbench_tin.benchmarks.planning.config import BenchConfig, UserModelConfig
from robustbench_tin.cli import app as cli
from robustbench_tin.cli.options_from_configs import given_options, with_options
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.options import Config, flag_of, option, options_of

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Toy(Config, panel="Toys"):
    size: int | None = option(None, "Size.", shown="any", at_least=1, example=3)
    part: float = option(0.5, "Part.", above=0, at_most=1)
    rest: float = option(0.0, "Rest.", at_least=0, below=1)
    kind: str = option("red", "Kind.", choices=("red", "blue"))
    names: str | Sequence[str] = option("a,b", "Names.")
    place: str | Path | None = option(None, "Place.", panel="Places")
    files: Sequence[str | Path] = option((), "Files.", flag="file")
    loud: bool = option(False, "Loud.")
    once: bool = option(False, "Once.", in_preset=False)


def called(*words: str) -> tuple[Toy, dict[str, Any], str]:
    """The config that a command gets from these words, the options given, and its output."""
    app = typer.Typer()
    seen: list[Any] = []

    @app.command()
    @with_options
    def play(context: typer.Context, toy: Toy) -> None:
        seen.extend((toy, given_options(context, toy)))

    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return (*(seen or (Toy(), {})), result.output)


def test_a_config_becomes_the_options_of_a_command() -> None:
    assert called() == (Toy(), {}, "")
    words = ["--size", "4", "--names", "c", "--place", "p", "--file", "x", "--file", "y", "--loud", "--once"]
    toy, given, _ = called(*words)
    expected = {"size": 4, "names": "c", "place": Path("p"), "files": [Path("x"), Path("y")]}
    assert given == {**expected, "loud": True, "once": True}
    assert toy == Toy(**given)
    assert called("--no-loud", "--part", "0.5")[1] == {"loud": False, "part": 0.5}
    assert "No such option" in called("--no-once")[2]


def test_the_help_has_every_option_in_its_panel() -> None:
    text = called("--help")[2]
    toys, places = text.index("Toys"), text.index("Places")
    assert toys < text.index("--size") < text.index("[default: (any)]") < text.index("--once") < places
    assert places < text.index("--place ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 0}, "size got 0; expected 1 or more, such as 3"),
        ({"part": 0.0}, "part got 0.0; expected more than 0, at most 1"),
        ({"part": 1.5}, "part got 1.5; expected more than 0, at most 1"),
        ({"part": math.nan}, "part got nan; expected more than 0, at most 1"),
        ({"rest": 1.0}, "rest got 1.0; expected 0 or more, below 1"),
        ({"size": math.inf}, "size got inf; expected 1 or more, such as 3"),
        ({"size": "big"}, "size got 'big'; expected 1 or more, such as 3"),
        ({"kind": "green"}, "kind got 'green'; expected red or blue"),
    ],
)
def test_a_value_out_of_bounds_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingError) as caught:
        Toy(**given)
    assert str(caught.value) == message


def test_values_at_the_bounds_are_taken() -> None:
    Toy(size=1, part=1.0, rest=0.0, kind="blue")
    Toy(part=1e-9, rest=0.999)


@pytest.mark.parametrize("config", [BenchConfig, UserModelConfig])
def test_every_option_has_a_help_text_and_a_default_within_its_bounds(config: type[Config]) -> None:
    config()
    for name, declared in options_of(config).items():
        assert re.fullmatch(r"[A-Z].*\.", declared.help), name


def test_the_docs_have_the_options_of_today() -> None:
    page = (ROOT / "docs" / "reference" / "options.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "docs" / "options.py"))["page"]() == page, "run: make pages"
    for name, declared in options_of(BenchConfig).items():
        assert f"\n| `{flag_of(name, declared)}` |" in page


@pytest.mark.parametrize("page", ["README.md", *sorted(map(str, (ROOT / "docs").rglob("*.md")))])
def test_no_table_of_the_docs_has_an_option_that_is_none(page: str) -> None:
    commands = get_command(cli.app).commands.values()  # type: ignore[attr-defined]
    options = [option for command in commands for option in command.params]
    known = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `--")]
    assert {flag for row in rows for flag in re.findall(r"--[a-z0-9-]+", row)} <= known
