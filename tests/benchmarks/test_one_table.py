"""All attacks in one table: its columns, budgets as they were typed, marks, and the order of rows."""

from __future__ import annotations

import pandas as pd
import pytest
from table_records import codes, figures, row

from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.reporting.results_table import tables
from robustbench_tin.errors import InvalidSettingError

EPS = (2 / 255, 8 / 255)


def of(model: str, clean: float, fgsm: tuple[float, float], pgd: tuple[float, float], **more) -> list[dict]:
    """The records of a cell under two attacks at two budgets."""
    rates = {"fgsm": fgsm, "pgd:steps=20": pgd}
    attacked = [
        row(model, attack, eps, rate, **more)
        for attack, both in rates.items()
        for eps, rate in zip(EPS, both, strict=True)
    ]
    return [row(model, "clean", 0.0, clean, **more), *attacked]


@pytest.fixture
def records() -> pd.DataFrame:
    return pd.DataFrame(
        [
            *of("b-net", 0.5, (0.4, 0.2), (0.3, 0.1)),
            *of("a-net", 0.9, (0.3, 0.1), (0.3, 0.0)),
            *of("c-net", 0.1, (0.9, 0.9), (0.9, 0.9), above_chance=False),
        ]
    )


def test_clean_stands_once_then_attack_by_eps(records: pd.DataFrame) -> None:
    (table,) = tables(records)
    assert table.columns[:8] == (
        *("model", "defense", ""),
        *("top-1 clean", "top-1 fgsm 2/255", "top-1 fgsm 8/255"),
        *("top-1 pgd:steps=20 2/255", "top-1 pgd:steps=20 8/255"),
    )
    assert [name.partition(" ")[0] for name in table.columns[8:]] == ["top-5"] * 5
    assert table.rows[0][3:8] == ("50.0", "40.0 ▼10.0", "20.0 ▼30.0", "30.0 ▼20.0", "10.0 ▼40.0")
    assert "under fgsm, pgd:steps=20 (linf, fixed budget)" in table.title


def test_by_attack_there_is_a_table_for_each(records: pd.DataFrame) -> None:
    fgsm, pgd = tables(records, by_attack=True)
    assert fgsm.columns[3:6] == pgd.columns[3:6] == ("top-1 clean", "top-1 eps 2/255", "top-1 eps 8/255")
    assert "under fgsm (" in fgsm.title
    assert "under pgd:steps=20 (" in pgd.title
    assert (fgsm.rows[0][5], pgd.rows[0][5]) == ("20.0 ▼30.0", "10.0 ▼40.0")


def test_attacks_that_ran_in_different_ways_say_so_and_show_what_they_measured(records: pd.DataFrame) -> None:
    stopping = records["attack"] == "pgd:steps=20"
    records.loc[stopping, list(figures("top5", None))] = None
    records.loc[stopping, "mode"] = "stop on success (top-1)"
    (table,) = tables(records)
    assert "fgsm (linf, fixed budget) and pgd:steps=20 (linf, stop on success (top-1))" in table.title
    assert table.columns[8:] == ("top-5 clean", "top-5 fgsm 2/255", "top-5 fgsm 8/255")


def test_certified_accuracy_keeps_a_table_of_its_own(records: pd.DataFrame) -> None:
    proved = row("b-net", "certified", 0.5, 0.2, norm="l2")
    main, certified = tables(pd.concat([records, pd.DataFrame([proved])]))
    assert not any("certified" in name for name in main.columns)
    assert [line[0] for line in certified.rows] == ["b-net"]
    assert "no attack within l2 eps" in certified.title


def test_specs_of_earlier_versions_are_shown_with_fractions(records: pd.DataFrame) -> None:
    records["defense"] = "pgd-at:eps=0.01568627450980392"
    (table,) = tables(records)
    assert table.rows[0][1] == "pgd-at:eps=4/255"
    assert "0.0156" not in table.markdown()


def test_the_legend_explains_the_marks_that_occur_and_no_other(records: pd.DataFrame) -> None:
    learned = records[records["above_chance"]].copy()
    (plain,) = tables(learned)
    assert plain.legend() == ["Marks: ▼ points lost to the attack."]
    few = Reason.of(TrustCode.few_images, images=8, needed=20).model_dump(mode="json")
    learned["trust_codes"] = [None, codes("rises"), [few], *[None] * 7]
    learned = learned[~((learned["model"] == "a-net") & (learned["attack"] == "fgsm"))]
    (marked,) = tables(learned, intervals=True)
    (legend,) = marked.legend()
    for words in ("▼ points lost", "[ ] 95 % interval", "! unreliable", "? not checked", "– no figure"):
        assert words in legend
    for words in ("▲", "±", "seeds", "not learned"):
        assert words not in legend
    (weak,) = tables(records)
    assert "▲ points gained" in weak.legend()[0]
    assert "not learned: clean" in weak.legend()[0]
    assert "not learned (dimmed): clean" in weak.legend(dims=True)[0]


def test_a_doubt_names_each_attack_once_with_its_budgets(records: pd.DataFrame) -> None:
    records["trust_codes"] = [None, *[codes("rises")] * 3, *[None] * 11]
    (table,) = tables(records)
    assert table.notes[-1] == (
        "! rises (b-net + none, seed 0, fgsm at 2/255 and 8/255, pgd:steps=20 at 2/255)"
    )


@pytest.mark.parametrize(
    ("column", "models"),
    [
        ("clean", ["a-net", "b-net", "c-net"]),
        ("worst", ["b-net", "a-net", "c-net"]),
        ("top1", ["b-net", "a-net", "c-net"]),
        ("model", ["a-net", "b-net", "c-net"]),
        ("top-1 fgsm 8/255", ["b-net", "a-net", "c-net"]),
        ("Top-5  clean", ["a-net", "b-net", "c-net"]),
        ("defense", ["b-net", "a-net", "c-net"]),
    ],
)
def test_rows_are_sorted_by_any_column_and_those_that_learned_nothing_come_last(
    records: pd.DataFrame, column: str, models: list[str]
) -> None:
    (table,) = tables(records, sort=column)
    assert [line[0] for line in table.rows] == models
    assert [table.rows[number][0] for number in table.dimmed] == ["c-net"]


def test_a_figure_that_failed_is_sorted_last(records: pd.DataFrame) -> None:
    failed = [row("d-net", "clean", 0.0, 0.99), row("d-net", "fgsm", EPS[0], None, status="failed: no luck")]
    (table,) = tables(pd.concat([records, pd.DataFrame(failed)]), sort="top-1 fgsm 2/255")
    assert [line[0] for line in table.rows] == ["b-net", "a-net", "c-net", "d-net"]


def test_an_unknown_column_is_one_line_that_names_those_there_are(records: pd.DataFrame) -> None:
    with pytest.raises(InvalidSettingError) as caught:
        tables(records, sort="fgsm")
    said = str(caught.value)
    assert said.startswith("sort got 'fgsm'; expected a column: clean, worst, top1, top5, model, defense, ")
    assert "top-1 fgsm 8/255" in said
    assert "\n" not in said
    # With a table an attack, a column that only one of them has sorts that one.
    records.loc[records["attack"] == "pgd:steps=20", list(figures("top5", None))] = None
    fgsm, pgd = tables(records, by_attack=True, sort="top-5 eps 8/255")
    assert [line[0] for line in fgsm.rows] == ["b-net", "a-net", "c-net"]
    assert [line[0] for line in pgd.rows] == ["b-net", "a-net", "c-net"]
