"""Budgets of k/255 in the gate: in rules, in labels, and in baselines that an earlier version wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import candidate, model, table

from robustbench_tin.benchmarks.gate.baseline import make_baseline
from robustbench_tin.benchmarks.gate.baseline_io import read_baseline
from robustbench_tin.benchmarks.gate.candidate import MeasurementKey
from robustbench_tin.benchmarks.gate.rules import parse_rule
from robustbench_tin.errors import InvalidSettingError

EARLIER, TODAY = "pgd-at:eps=0.01568627450980392", "pgd-at:eps=4/255"


def test_a_measure_is_called_by_its_fraction() -> None:
    assert MeasurementKey("fgsm", "linf", 8 / 255).label == "fgsm@8/255"
    assert MeasurementKey("fgsm", "linf", 0.03).label == "fgsm@0.03"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("pgd@8/255=0.2", ("*", "*", "pgd")),
        ("pgd:alpha=2/255@8/255=0.2", ("*", "*", "pgd:alpha=2/255")),
        ("resnet*/pgd-at:eps=4/255/pgd@*=0.2", ("resnet*", TODAY, "pgd")),
        (f"resnet*/{EARLIER}/pgd@*=0.2", ("resnet*", TODAY, "pgd")),
        (
            "a/jpeg+pgd-at:eps=4/255,steps=3/pgd:alpha=2.5/255=0.2",
            ("a", "jpeg+pgd-at:eps=4/255,steps=3", "pgd:alpha=2.5/255"),
        ),
    ],
)
def test_rules_take_names_with_fractions_in_them(text: str, names: tuple[str, str, str]) -> None:
    rule = parse_rule("min", text)
    assert (rule.model, rule.defense, rule.attack) == names
    assert rule.number == 0.2


def test_a_rule_of_two_parts_is_still_refused() -> None:
    with pytest.raises(InvalidSettingError, match="expected ATTACK"):
        parse_rule("min", "resnet/pgd@0.03=0.2")


def test_a_baseline_of_an_earlier_version_is_compared_with_today_s_names(tmp_path: Path) -> None:
    made = make_baseline([candidate(model(table(), defense=EARLIER))])
    made.write(tmp_path / "baseline.json")
    assert EARLIER in (tmp_path / "baseline.json").read_text()
    read = read_baseline(tmp_path / "baseline.json")
    assert [entry.defense for entry in read.entries] == [TODAY]
