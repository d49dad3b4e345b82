"""Tables: their content, and that a narrow terminal cuts no figure."""

import io
import re

import pandas as pd
import pytest
from rich.console import Console
from table_records import codes, row

from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.reporting.results_table import tables
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.benchmarks.reporting.terminal import TerminalTable
from robustbench_tin.progress import ConsoleReporter


@pytest.fixture
def records() -> pd.DataFrame:
    return pd.DataFrame(
        [
            row("inceptionv3", "clean", 0.0, 0.76),
            row("inceptionv3", "fgsm", 0.01, 0.32),
            row("inceptionv3", "fgsm", 0.03, 0.46),
            row("nasnetlarge", "clean", 0.0, 0.10, above_chance=False),
            row("nasnetlarge", "fgsm", 0.01, 0.12, above_chance=False),
            row("nasnetlarge", "fgsm", 0.03, None, status="failed: no luck", above_chance=False),
        ]
    )


def test_figures_are_percent_with_the_points_lost(records):
    (table,) = tables(records)
    assert table.columns[3:6] == ("top-1 clean", "top-1 eps 0.01", "top-1 eps 0.03")
    assert table.rows[0][:6] == ("inceptionv3", "none", "", "76.0", "32.0 ▼44.0", "46.0 ▼30.0")


def test_what_did_not_learn_is_marked_and_a_failure_is_told(records):
    (table,) = tables(records)
    assert table.rows[1][:6] == ("nasnetlarge", "none", "not learned", "10.0", "12.0 ▲2.0", "failed")
    assert "nasnetlarge + none, seed 0, fgsm at 0.03: failed: no luck" in table.notes
    (legend,) = table.legend()
    assert "not learned: clean top-1 is not above chance" in legend


@pytest.mark.parametrize(
    "status", ["failed: the training loss was no longer finite", "not measured: no weights"]
)
def test_why_a_whole_cell_has_no_figures_is_told_once(records: pd.DataFrame, status: str) -> None:
    lost = [row("vgg16", attack, eps, None, status=status) for attack, eps in (("clean", 0), ("fgsm", 0.01))]
    (table,) = tables(pd.concat([records, pd.DataFrame(lost)]))
    assert [note for note in table.notes if "vgg16" in note] == [f"vgg16 + none, seed 0: {status}"]


def test_the_budgets_to_show_can_be_chosen(records):
    (table,) = tables(records, eps=[0.0, 0.03])
    assert table.columns[3:] == ("top-1 clean", "top-1 eps 0.03", "top-5 clean", "top-5 eps 0.03")


def test_clean_measures_alone_make_a_table(records):
    (table,) = tables(records[records["attack"] == "clean"])
    assert table.columns[-2:] == ("top-1 clean", "top-5 clean")


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_figure_is_cut_on_a_narrow_terminal(records, width):
    (table,) = tables(records)
    printer = Console(width=width, force_terminal=False)
    with printer.capture() as shown:
        printer.print(TerminalTable(table))
    assert "…" not in shown.get()
    for figure in ("76.0", "32.0", "▼44.0", "inceptionv3"):
        assert figure in shown.get()


def test_an_attack_until_broken_shows_its_criterion_only_and_says_so(records: pd.DataFrame) -> None:
    records = records[records["model"] == "inceptionv3"].copy()
    attacked = records["attack"] == "fgsm"
    records.loc[attacked, ["top5", "top5_low", "top5_high"]] = None
    records.loc[attacked, "mode"] = "stop on success (top-1)"
    records["remark_list"] = [["cross-entropy stands in"] if fgsm else [] for fgsm in attacked]
    (table,) = tables(records)
    assert "stop on success (top-1)" in table.title
    assert not any("top-5" in column for column in table.columns)
    assert "cross-entropy stands in" in table.notes


def test_what_changes_the_attack_stands_in_the_title(records: pd.DataFrame) -> None:
    (table,) = tables(records.assign(eot=20, oblivious=True, eight_bit=True))
    for words in ("20 passes per gradient", "oblivious", "8 bits"):
        assert words in table.title


def test_a_figure_not_to_be_believed_is_marked_and_the_reason_told(records: pd.DataFrame) -> None:
    records["trust_codes"] = [None, [], codes("gradients are zero", "accuracy rises"), None, None, None]
    (table,) = tables(records)
    assert table.rows[0][4:6] == ("32.0 ▼44.0", "46.0! ▼30.0")
    where = "(inceptionv3 + none, seed 0, fgsm at 0.03)"
    assert table.notes[-2:] == (f"! gradients are zero {where}", f"! accuracy rises {where}")
    assert "46.0!" in table.markdown()


def test_a_clean_figure_not_to_be_believed_is_marked_too(records: pd.DataFrame) -> None:
    records["trust_codes"] = [codes("it follows from the batch"), [], [], None, None, None]
    (table,) = tables(records)
    assert table.rows[0][3].endswith("!")
    assert table.notes[-1] == "! it follows from the batch (inceptionv3 + none, seed 0, clean)"


def test_a_figure_that_could_not_be_checked_has_a_mark_of_its_own(records: pd.DataFrame) -> None:
    chance, few = Reason.of(TrustCode.at_chance), Reason.of(TrustCode.few_images, images=8, needed=20)
    few_codes, chance_codes = ([reason.model_dump(mode="json")] for reason in (few, chance))
    none = [Reason.of(TrustCode.no_figure).model_dump(mode="json")]
    records["trust_codes"] = [
        None,
        few_codes,
        [*codes("accuracy rises"), *few_codes],
        None,
        chance_codes,
        none,
    ]
    (table,) = tables(records)
    # A doubt goes before; a figure that is not there has no mark.
    assert table.rows[0][4:6] == ("32.0? ▼44.0", "46.0! ▼30.0")
    assert table.rows[1][4:6] == ("12.0? ▲2.0", "failed")
    assert table.notes[-3:] == (
        "! accuracy rises (inceptionv3 + none, seed 0, fgsm at 0.03)",
        f"? unchecked: {few} (inceptionv3 + none, seed 0)",
        f"? unchecked: {chance} (nasnetlarge + none, seed 0)",
    )


def test_each_remark_is_shown_once(records: pd.DataFrame) -> None:
    records["remark_list"] = [["of few"], ["cut", "of few"], ["cut", "of few"], [], [], []]
    (table,) = tables(records)
    assert [note for note in table.notes if note in ("of few", "cut")] == ["of few", "cut"]


HOSTILE = "a|b [red]x[/red] [/tmp/x] :warning: `c` <img>\n\x1b[2J| fake | 99.9 |"


def test_no_text_of_data_is_taken_for_markup() -> None:
    table = Table(HOSTILE, (HOSTILE, "top-1"), ((HOSTILE, "1.0 ▼0.5"),), 1, (HOSTILE,))
    printer = Console(width=400, force_terminal=True, color_system=None)
    with printer.capture() as shown:
        printer.print(TerminalTable(table))
    text = shown.get()
    assert text.count("[red]x[/red] [/tmp/x] :warning: `c` <img>\\n\\x1b[2J| fake | 99.9 |") == 4
    assert "\x1b[2J" not in text


def test_a_long_note_under_a_narrow_table_keeps_its_words() -> None:
    note = "failed: IndexError: weights[i] of [red]"
    printer = Console(width=100)
    with printer.capture() as shown:
        printer.print(TerminalTable(Table("t", ("model",), (("x",),), 1, (note,))))
    assert note in shown.get()


def test_markdown_has_a_line_a_row_and_a_cell_a_column() -> None:
    table = Table(HOSTILE, ("model", "top-1"), ((HOSTILE, "1.0"),), 1, (HOSTILE,))
    rows = [line for line in table.markdown().splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    assert "<img>" not in table.markdown()
    assert "\x1b" not in table.markdown()


def test_a_progress_bar_takes_no_name_for_markup() -> None:
    file = io.StringIO()
    reporter = ConsoleReporter(Console(file=file, force_terminal=True, width=200, color_system=None))
    with reporter.preparing() as report:
        report("decoding [/x] [red]", 1, 2)
    with reporter.overall(1.0), reporter.stage("train [/x] [red]", 2, 1.0) as advance:
        advance(1)
    reporter.warn("said [/x] [red]\x1b[2J")
    for words in ("decoding [/x] [red]", "train [/x] [red]", "said [/x] [red]\\x1b[2J"):
        assert words in file.getvalue()
