"""Modules that moved are found under their old names for one version, with a warning."""

from __future__ import annotations

import importlib
import sys

import pytest
from rich.console import Console

from robustbench_tin import cli
from robustbench_tin.cli.app import main
from robustbench_tin.models.user_model import load_user_model


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("robustbench_tin.benchmarks.tables", "robustbench_tin.benchmarks.reporting.table"),
        ("robustbench_tin.models.own", "robustbench_tin.models.user_model"),
    ],
)
def test_an_old_module_says_where_it_is_now(old: str, new: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        importlib.import_module(old)


@pytest.mark.filterwarnings("ignore:robustbench_tin:DeprecationWarning")
def test_what_they_hold_is_the_same() -> None:
    from robustbench_tin.benchmarks.tables import Table
    from robustbench_tin.models.own import load_own_model

    assert load_own_model is load_user_model
    assert cli.main is main
    console = Console(width=80, record=True)
    console.print(Table("title", ("model", "top-1"), (("[red]x", "1.0"),), 1).rich())
    assert "[red]x" in console.export_text()
