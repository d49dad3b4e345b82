"""``robust-tin compare``: the pairs, the tests, and the table that a reader sees."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from made_runs import drawn, made_run
from rich.console import Console
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from robustbench_tin.benchmarks.codes.status import Status, StatusCode
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.comparison.compare import Comparison, compare
from robustbench_tin.benchmarks.reporting.figure import Standing
from robustbench_tin.benchmarks.reporting.latex import table_latex
from robustbench_tin.benchmarks.reporting.terminal import TerminalTable
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.cli.app import main
from robustbench_tin.errors import RobustTinError

CLEAN = ("clean", 0.0)
PGD = ("pgd", 0.03)
LONG = "augment:rotation=0,zoom=0+cutmix:probability=0.5"


def measures(clean: float, pgd: float, seed: int) -> dict:
    return {CLEAN: drawn(clean, seed), PGD: drawn(pgd, seed + 100)}


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Run:
    """Two backbones and two defenses, of one seed."""
    cells = [("m1", "none"), ("m1", "jpeg"), ("m2", "none"), ("m2", "jpeg")]
    results = {(*cell, 0): measures(0.9, 0.2 + 0.15 * number, number) for number, cell in enumerate(cells)}
    return made_run(tmp_path_factory.mktemp("grid") / "run", results)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> Run:
    """Two defenses of three seeds."""
    results = {
        ("m1", defense, seed): measures(0.8, rate, 10 * place + seed)
        for place, (defense, rate) in enumerate((("none", 0.2), ("jpeg", 0.6)))
        for seed in range(3)
    }
    return made_run(tmp_path_factory.mktemp("seeds") / "run", results)


Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def robust_tin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process: these commands need no torch, whose import takes seconds."""

    def run(*words: object) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["robust-tin", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return CompletedProcess(sys.argv, int(str(ended.value.code)), *capsys.readouterr())

    return run


def names(found: Comparison) -> list[tuple[str, str, str, str]]:
    pairs = ((each.first, each.second) for each in found.differences)
    return list(dict.fromkeys((a.model, a.defense, b.model, b.defense) for a, b in pairs))


def test_p_values_are_those_of_statsmodels(grid: Run) -> None:
    found = compare(grid.path)
    chances = []
    for each in found.differences:
        (ours,), (theirs,) = (
            group.hits(each.attack, each.eps, each.rank) for group in (each.first, each.second)
        )
        table = [[0, (ours & ~theirs).sum()], [(~ours & theirs).sum(), 0]]
        chances.append(mcnemar(table, exact=True).pvalue)
        assert each.value == pytest.approx(theirs.mean() - ours.mean())
    assert len(chances) == 2 * 2 * 2  # pairs, measurements, ranks
    assert [each.chance for each in found.differences] == pytest.approx(chances)
    corrected = multipletests(chances, method="holm")[1]
    assert [each.corrected for each in found.differences] == pytest.approx(list(corrected))


def test_one_run_compares_its_defenses_backbone_by_backbone(grid: Run) -> None:
    assert names(compare(grid.path)) == [("m1", "none", "m1", "jpeg"), ("m2", "none", "m2", "jpeg")]


def test_backbones_are_compared_if_there_is_one_defense(grid: Run) -> None:
    assert names(compare(grid.path, cell="*/none")) == [("m1", "none", "m2", "none")]


def test_patterns_choose_the_sides(grid: Run) -> None:
    found = compare(f"{grid.path}:m1/*", f"{grid.path}:m2/*")
    assert names(found) == [("m1", "none", "m2", "none"), ("m1", "jpeg", "m2", "jpeg")]


def test_one_cell_is_compared_with_any_other(grid: Run) -> None:
    found = compare(f"{grid.path}:m1/none", f"{grid.path}:m2/jpeg")
    assert names(found) == [("m1", "none", "m2", "jpeg")]


def test_a_cell_of_two_runs_is_compared_with_itself(grid: Run, seeds: Run) -> None:
    assert names(compare(grid.path, seeds.path)) == [
        ("m1", "none", "m1", "none"),
        ("m1", "jpeg", "m1", "jpeg"),
    ]


def test_seeds_together_are_tested_by_t_and_one_by_one_by_mcnemar(seeds: Run) -> None:
    together = compare(seeds.path)
    assert {each.test.value for each in together.differences if each.test} == {"t over seeds"}
    (pgd,) = [each for each in together.differences if (each.attack, each.rank) == ("pgd", "top1")]
    assert pgd.a.deviation == pytest.approx(
        np.std([hits.mean() for hits in pgd.first.hits("pgd", 0.03, "top1")], ddof=1)
    )
    parted = compare(seeds.path, by_seed=True)
    assert [each.first.seeds for each in parted.differences[::4]] == [(0,), (1,), (2,)]
    assert {each.test.value for each in parted.differences if each.test} == {"McNemar"}


def test_other_images_are_refused_in_one_line(grid: Run, tmp_path: Path, robust_tin: Command) -> None:
    results = {("m1", "none", 0): {CLEAN: drawn(0.5, 0, 100)}}
    other = made_run(tmp_path / "other", results)
    with pytest.raises(RobustTinError, match=r"another data set: made, 200 images .* made, 100 images"):
        compare(grid.path, other.path)
    result = robust_tin("compare", grid.path, other.path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("{}", "nowhere", "'nowhere' is not a run directory"),
        ("{}:m3/*", None, "has no cell 'm3/\\*'"),
        ("{}:m1/none", None, "nothing to compare"),
        ("{}:m1/none", "{}:m1/none", "both sides are the same cell"),
    ],
)
def test_mistakes_are_told(grid: Run, first: str, second: str | None, message: str) -> None:
    sides = [None if side is None else side.format(grid.path) for side in (first, second)]
    with pytest.raises(RobustTinError, match=message):
        compare(*sides)


def test_measurements_of_other_settings_are_named_and_left_out(grid: Run, tmp_path: Path) -> None:
    other = made_run(tmp_path / "run", {("m1", "none", 0): measures(0.9, 0.2, 0)}, eot=4)
    found = compare(f"{grid.path}:m1/none", other.path)
    assert found.notes == ("pgd 0.03 is not compared: passes a gradient (eot) 1 in A, 4 in B",)
    assert {each.attack for each in found.differences} == {"clean"}


def test_a_failed_measurement_has_no_difference_and_no_test(tmp_path: Path) -> None:
    failed = Status.of(StatusCode.failed, why="no luck")
    results = {
        ("m1", "none", 0): measures(0.9, 0.2, 0),
        ("m1", "jpeg", 0): {CLEAN: drawn(0.9, 5), PGD: failed},
    }
    found = compare(made_run(tmp_path / "run", results).path)
    (row, _) = [each for each in found.differences if each.attack == "pgd"]
    assert (row.value, row.chance, row.corrected, row.b.instead) == (None, None, None, "failed")
    assert "failed" in [text for line in found.table.rows for text in line]


def test_the_better_one_is_best_and_a_chance_difference_a_tie(grid: Run) -> None:
    table = compare(f"{grid.path}:m1/none", f"{grid.path}:m2/jpeg").table
    standings = {(row[0], row[1]): tuple(text.standing for text in row[2:4]) for row in table.rows}
    assert standings["clean", "1"] == (Standing.tie, Standing.tie)
    assert standings["pgd 0.03", "1"] == (Standing.none, Standing.best)


def test_a_doubted_figure_is_never_the_best(tmp_path: Path) -> None:
    doubt = (Reason.of(TrustCode.no_gradients), Reason.of(TrustCode.asked_nothing))
    results = {("m1", "none", 0): measures(0.9, 0.1, 0), ("m1", "jpeg", 0): measures(0.9, 0.9, 5)}
    found = compare(made_run(tmp_path / "run", results, trust=doubt).path)
    (row,) = [row for row in found.table.rows if row[:2] == ("pgd 0.03", "1")]
    assert [text.standing for text in row[2:4]] == [Standing.none, Standing.none]
    assert row[3].endswith("!")
    assert "Reasons for ! and ?: robust-tin show RUN." in found.table.notes


def test_identity_columns_stay_whole_at_80_columns(tmp_path: Path) -> None:
    results = {
        (model, defense, 0): measures(0.9, 0.3, number)
        for number, (model, defense) in enumerate(
            (model, defense)
            for model in ("timm:test_resnet", "densenet169")
            for defense in ("none", LONG, "fgsm-at")
        )
    }
    found = compare(made_run(tmp_path / "run", results).path)
    printer = Console(width=80, color_system=None)
    with printer.capture() as captured:
        printer.print(TerminalTable(found.table))
    lines = captured.get().splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert not any("…" in line for line in lines)
    pieces = ("augment:", "rotation=0,zoom=0", "+cutmix:", "probability=0.5")
    for whole in ("timm:test_resnet", "densenet169", *pieces, "fgsm-at", "pgd 0.03"):
        assert any(whole in line for line in lines)


def test_latex_is_booktabs_with_best_and_ties(grid: Run) -> None:
    text = table_latex(compare(f"{grid.path}:m1/none", f"{grid.path}:m2/jpeg").table)
    rows = [line.strip() for line in text.splitlines() if line.endswith(r"\\") and "&" in line]
    counts = {line.count(" & ") for line in rows}
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert counts == {len(columns) - 1}
    assert r"\toprule" in text
    assert r"\textbf{" in text
    assert r"\underline{" in text
    assert text.count("{") == text.count("}")
    assert "$-$" in text


def test_show_marks_the_best_of_each_column(grid: Run, robust_tin: Command) -> None:
    (table,) = grid.tables_of(with_best=True)
    place = table.columns.index("top-1 eps 0.03")
    attacked = [row[place].standing for row in table.rows]
    assert attacked[-1] is Standing.best
    assert attacked[0] is Standing.none
    clean = [row[table.columns.index("top-1 clean")].standing for row in table.rows]
    assert sorted(clean) == sorted([Standing.best, Standing.tie, Standing.tie, Standing.tie])
    printed = robust_tin("show", grid.path, "--format", "latex")
    assert printed.stdout.startswith(r"\begin{table}")
    assert r"\textbf{" in printed.stdout


def test_csv_has_a_row_a_difference_in_full(grid: Run, robust_tin: Command) -> None:
    found = compare(grid.path)
    rows = list(csv.DictReader(io.StringIO(robust_tin("compare", grid.path, "--csv").stdout)))
    assert len(rows) == len(found.differences)
    for row, each in zip(rows, found.differences, strict=True):
        assert (row["model_a"], row["defense_b"]) == (each.first.model, each.second.defense)
        assert float(row["p_holm"]) == pytest.approx(each.corrected)
        assert float(row["difference"]) == pytest.approx(each.value)


@pytest.mark.parametrize(
    ("flag", "start"), [("--latex", r"\begin{table}"), ("--markdown", "**Accuracy"), ("--html", "<table>")]
)
def test_each_form_is_printed(grid: Run, flag: str, start: str, robust_tin: Command) -> None:
    printed = robust_tin("compare", grid.path, flag)
    assert printed.returncode == 0
    assert printed.stdout.startswith(start)


def test_two_forms_are_refused(grid: Run, robust_tin: Command) -> None:
    assert "give only one of them" in robust_tin("compare", grid.path, "--latex", "--csv").stderr
