"""A table at the width of a terminal: names stay whole, minor figures give way and a line says so."""

from __future__ import annotations

import pandas as pd
import pytest
from rich.console import Console
from table_records import row

from robustbench_tin.benchmarks.reporting.results_table import tables
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.benchmarks.reporting.terminal import TerminalTable

LONG = "augment:rotation=0,zoom=0+cutmix:probability=0.5+n-fgsm:eps=8/255"


def records(
    attacks: tuple[str, ...] = ("fgsm", "pgd"), defense: str = "fgsm-at", seeds: int = 3
) -> pd.DataFrame:
    made = [
        row("timm:test_resnet", attack, eps, 0.5 - eps + seed / 100, seed=seed, defense=defense)
        for seed in range(seeds)
        for attack in ("clean", *attacks)
        for eps in ((0.0,) if attack == "clean" else (2 / 255, 8 / 255))
    ]
    return pd.DataFrame(made)


def shown(table: Table, width: int, *, terminal: bool = False) -> list[str]:
    """The lines that a terminal of this width shows."""
    printer = Console(width=width, force_terminal=terminal, color_system=None)
    with printer.capture() as captured:
        printer.print(TerminalTable(table))
    lines = captured.get().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    assert not any("…" in line for line in lines)
    return [line.rstrip() for line in lines]


def test_a_wide_terminal_shows_all() -> None:
    (table,) = tables(records(seeds=1), intervals=True)
    lines = shown(table, 300)
    assert any("46.9 ▼3.1 [36.9, 56.9]" in line for line in lines)
    assert any(line.count("top-5") for line in lines)
    assert not any("Left out" in line for line in lines)


@pytest.mark.parametrize("intervals", [False, True])
@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_names_of_a_row_stay_on_one_line(width: int, seeds: int, intervals: bool) -> None:
    (table,) = tables(records(seeds=seeds), intervals=intervals)
    lines = shown(table, width)
    assert any(line.startswith(" timm:test_resnet  fgsm-at ") for line in lines)
    said = " ".join(lines)
    assert ("top-5" in said.partition("Left out")[0]) or "Left out at this width: top-5" in said


def test_at_80_columns_top_5_and_drops_give_way_and_the_spread_stays() -> None:
    (table,) = tables(records())
    text = " ".join(shown(table, 80))
    assert (
        "Left out at this width: top-5, points lost. A wider terminal shows more, --format csv all." in text
    )
    assert "51.0" in text
    assert "± 1.0" in text
    assert "▼" not in text


def test_at_120_columns_the_drops_are_there_again() -> None:
    (table,) = tables(records())
    text = "\n".join(shown(table, 120))
    assert "Left out at this width: top-5." in text
    assert "▼3.1" in text


@pytest.mark.parametrize("width", [80, 120])
def test_many_attacks_continue_below_with_the_names_again(width: int) -> None:
    attacks = tuple(f"pgd:steps={steps}" for steps in range(1, 13))
    (table,) = tables(records(attacks))
    lines = shown(table, width)
    parts = lines.count("(more columns)") + 1
    assert parts > 1
    assert sum(line.startswith(" timm:test_resnet  fgsm-at ") for line in lines) == parts
    headings = [line for line in lines if "steps=" in line and line.startswith(" ")]
    assert sum(line.count("steps=") for line in headings) == 2 * len(attacks)


@pytest.mark.parametrize("width", [80, 120])
def test_a_long_name_is_broken_at_its_punctuation_only(width: int) -> None:
    (table,) = tables(records(defense=LONG))
    lines = shown(table, width)
    for piece in ("augment:rotation=0,zoom=0", "+cutmix:probability=0.5", "+n-fgsm:eps=8/255"):
        assert any(piece in line for line in lines)


def test_rows_that_mean_nothing_are_dimmed_and_said_to_be_where_there_are_styles() -> None:
    weak = records(seeds=1).assign(above_chance=False)
    (table,) = tables(weak)
    printer = Console(width=160, force_terminal=True, color_system="standard")
    with printer.capture() as captured:
        printer.print(TerminalTable(table))
    assert "not learned (dimmed): " in captured.get()
    assert not any("(dimmed)" in line for line in shown(table, 160))


def test_a_table_of_names_alone_is_shown() -> None:
    assert any("one" in line for line in shown(Table("t", ("run", "state"), (("one", "done"),), 2), 40))
