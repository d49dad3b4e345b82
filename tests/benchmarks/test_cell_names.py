"""Cells by the names that the screen shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_tin import bench
from robustbench_tin.benchmarks.planning.cell_names import cell_name, is_named, listed, select_cells
from robustbench_tin.benchmarks.planning.config import TableConfig
from robustbench_tin.benchmarks.planning.plan import Cell, eps_slug, slug
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.errors import RunError

CELLS = [
    Cell(model, defense, seed)
    for model in ("mobilenet", "timm:test_resnet")
    for defense in ("none", "fgsm-at", "pgd-at:eps=4/255+jpeg")
    for seed in (0, 1)
]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("mobilenet/fgsm-at/0", 1),
        ("mobilenet/fgsm-at", 2),
        ("*/fgsm-at/*", 4),
        ("*/fgsm-at/1", 2),
        ("mobilenet/*", 6),
        ("timm:*/pgd-at*/0", 1),
        ("timm:test_resnet/pgd-at:eps=4/255+jpeg/1", 1),
        ("mobilenet--fgsm-at--s0", 1),
        (CELLS[-1].slug, 1),
        ("mobilenet + fgsm-at, seed 0", 1),
        (" mobilenet/none/0/ ", 1),
        ("*", 12),
    ],
)
def test_a_cell_is_named_as_it_is_shown_with_patterns(text: str, count: int) -> None:
    found = select_cells(CELLS, text, "runs/a")
    assert len(found) == count
    assert all(is_named(cell, text) for cell in found)


@pytest.mark.parametrize("cell", CELLS)
def test_its_own_name_stands_for_one_cell(cell: Cell) -> None:
    assert select_cells(CELLS, cell_name(cell), "runs/a") == [cell]


def test_an_unknown_cell_is_one_line_with_the_close_ones() -> None:
    with pytest.raises(
        RunError, match="run 'runs/a' has no cell 'mobilnet/none/0'; known: mobilenet/none/0"
    ) as told:
        select_cells(CELLS, "mobilnet/none/0", "runs/a")
    assert "\n" not in str(told.value)
    assert listed(["a", "b", "c", "d", "e", "f", "g"]) == "a, b, c, d, e and 2 more"


def test_the_spec_of_an_earlier_version_goes_by_today_s_name() -> None:
    earlier = Cell("mobilenet", "pgd-at:eps=0.01568627450980392", 0)
    assert cell_name(earlier) == "mobilenet/pgd-at:eps=4/255/0"
    assert is_named(earlier, "mobilenet/pgd-at:eps=4/255/0")


def test_names_of_files_have_no_long_number_and_no_slash() -> None:
    assert eps_slug(8 / 255) == "8-255"
    assert eps_slug(0.03) == "0.03"
    assert slug("pgd-at:eps=4/255").startswith("pgd-at_eps=4_255-")


@pytest.fixture(scope="module")
def trained(small_options, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two cells whose budget and defense are k/255."""
    options = small_options(tmp_path_factory.mktemp("named") / "run")
    changed = {"defenses": "none,fgsm-at:eps=4/255", "eps": "8/255", "epochs": 1}
    return bench(**{**options, **changed})


def test_a_run_with_fractions_keeps_them_in_names_and_shows_them(trained: Run) -> None:
    assert trained.plan.defenses == ("none", "fgsm-at:eps=4/255")
    names = [path.name for path in (trained.path / "cells").rglob("*")]
    assert "fgsm@8-255.json" in names
    assert not any("0.0" in name.replace("clean@0.0", "") for name in names)
    shown = [*trained.plan.describe(), (trained.path / "results.md").read_text()]
    assert not any("0.0156" in text or "0.0313" in text for text in shown)
    assert any("linf eps 8/255" in text for text in shown)


def test_measures_under_the_names_of_earlier_versions_are_read(trained: Run, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(trained.path, copy)
    for file in list(copy.rglob("*@8-255.*")):
        file.rename(file.with_name(file.name.replace("8-255", repr(8 / 255))))
    assert Run.load(copy).complete
    assert Run.load(copy).tables == trained.tables


def test_show_takes_the_cells_that_a_pattern_names(trained: Run) -> None:
    (table,) = trained.tables_of(TableConfig(), cell="*/fgsm-at*/*")
    assert [line[1] for line in table.rows] == ["fgsm-at:eps=4/255"]
    assert set(trained.records_of("*/none/0")["defense"]) == {"none"}
    with pytest.raises(RunError, match="has no cell"):
        trained.tables_of(cell="vgg16/none/0")


def test_a_model_is_found_by_run_and_cell_in_every_form(trained: Run) -> None:
    cell = list(trained.plan.cells())[1]
    wanted = find_trained(trained.path / cell.slug)
    assert wanted.defense == "fgsm-at:eps=4/255"
    assert find_trained(trained.path, cell_name(cell)) == wanted
    assert find_trained(f"{trained.path}/{cell_name(cell)}") == wanted
    assert find_trained(trained.path, "*/fgsm-at*/0") == wanted
    with pytest.raises(RunError, match=r"has 2 cells '.*/0'; name one of them with --cell"):
        find_trained(trained.path, "*/0")
    with pytest.raises(RunError, match="no run at"):
        find_trained(trained.weights_file(cell), "a/none/0")


def test_a_defense_takes_a_source_by_the_name_of_its_cell(
    trained: Run, small_options, tmp_path: Path
) -> None:
    source = f"{trained.path}/timm:test_resnet/none/0"
    options = {**small_options(tmp_path / "fooled"), "attacks": "fgsm", "eps": "0", "epochs": 1}
    run = bench(**{**options, "defenses": f"fgsm-static:source={source},eps=8/255"})
    assert run.complete
