"""Reports as the services read them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from made_up import candidate, model, right, table

from robustbench_tin.benchmarks.gate.baseline import make_baseline
from robustbench_tin.benchmarks.gate.check import check
from robustbench_tin.benchmarks.gate.ci_reports import FORMATS, as_annotations, write_reports
from robustbench_tin.benchmarks.gate.result import CheckReport
from robustbench_tin.benchmarks.gate.rules import Rules


@pytest.fixture
def report(tmp_path) -> CheckReport:
    """One measure worse, one missing, one new, one as it was."""
    file = tmp_path / "baseline.json"
    make_baseline([candidate(model(table()))]).write(file)
    now = {("clean", 0.0): right(340), ("fgsm", 0.03): right(100), ("square", 0.03): right(50)}
    return check(candidate(model(now)), file)


def test_junit_has_a_case_for_each_measure(report):
    suites = ET.fromstring(FORMATS["junit"](report))
    assert (suites.get("tests"), suites.get("failures"), suites.get("errors")) == ("4", "1", "1")
    cases = {case.get("name"): case for case in suites.iter("testcase")}
    assert list(cases) == ["clean", "fgsm@0.03", "pgd@0.03", "square@0.03"]
    assert cases["fgsm@0.03"].find("failure").get("message").startswith("worse: baseline 60.0 %, now 25.0 %")
    assert "missing" in cases["pgd@0.03"].find("error").get("message")
    assert cases["fgsm@0.03"].find("failure").text == cases["fgsm@0.03"].find("failure").get("message")
    assert {case.get("classname") for case in cases.values()} == {"net + none"}


def test_a_figure_that_could_not_be_checked_is_said_and_fails_nothing():
    few = "unchecked: too few images: 8, and 20 are needed"
    now = model({("clean", 0.0): right(340), ("fgsm", 0.03): right(100)}, trust=few)
    report = check(candidate(now), None, Rules().then((), ("fgsm=0.1",), None))
    suites = ET.fromstring(FORMATS["junit"](report))
    assert (suites.get("failures"), suites.get("errors")) == ("0", "0")
    said = {case.get("name"): case.find("system-out").text for case in suites.iter("testcase")}
    assert said["fgsm@0.03"] == f"not worse: now 25.0 %; {few}"
    assert json.loads(FORMATS["sarif"](report))["runs"][0]["results"] == []
    lines = as_annotations(report).splitlines()
    assert any(line.startswith("::notice title=net + none%2C fgsm@0.03::not worse") for line in lines)
    assert f"? {few} (net + none, clean; net + none, fgsm@0.03)" in FORMATS["markdown"](report)
    results = json.loads(FORMATS["json"](report))["results"]
    assert [result["unchecked"] for result in results] == [[few.removeprefix("unchecked: ")]] * 2


def test_sarif_has_a_result_for_each_measure_that_needs_a_look(report):
    content = json.loads(FORMATS["sarif"](report))
    (run,) = content["runs"]
    known = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert [(r["ruleId"], r["level"]) for r in run["results"]] == [
        ("robustness-worse", "error"),
        ("robustness-not-comparable", "warning"),
    ]
    assert {result["ruleId"] for result in run["results"]} <= known
    assert all(
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("baseline.json")
        for result in run["results"]
    )
    prints = [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]
    assert len(set(prints)) == 2


def test_a_path_in_sarif_is_a_uri(report):
    content = json.loads(FORMATS["sarif"](replace(report, baseline="my files/b#1.json")))
    (place,) = content["runs"][0]["results"][0]["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "my%20files/b%231.json"


def test_annotations_are_one_line_each_with_nothing_that_starts_another(report):
    lines = as_annotations(report).splitlines()
    assert all(line.startswith(("::error title=", "::warning title=", "::notice title=")) for line in lines)
    assert lines[0].startswith("::error title=net + none%2C fgsm@0.03::worse")
    assert "%25" in lines[0]
    assert all(line.count("::") == 2 for line in lines)


def test_json_and_markdown_hold_every_measure(report):
    content = json.loads(FORMATS["json"](report))
    assert content["exit_code"] == report.exit_code == 1
    assert [f["status"] for f in content["results"]] == ["not worse", "worse", "cannot compare", "new"]
    assert content["results"][1]["before"] == pytest.approx(0.6)
    text = FORMATS["markdown"](report)
    assert text.startswith("### Robustness check FAILED")
    assert sum(line.startswith("| net ") for line in text.splitlines()) == 4


def test_only_what_is_asked_for_is_written(report, tmp_path):
    write_reports(report, {"junit": tmp_path / "a.xml", "sarif": None, "json": tmp_path / "a.json"})
    assert (tmp_path / "a.xml").read_text() == FORMATS["junit"](report)
    assert sorted(path.name for path in tmp_path.glob("a.*")) == ["a.json", "a.xml"]


def test_a_finding_of_the_whole_check_is_in_every_format(tmp_path):
    file = tmp_path / "baseline.json"
    make_baseline([candidate(model(table()))]).write(file)
    report = check(candidate(model(table())), file, Rules(require_power=True))
    text = report.findings[0].text
    (failure,) = ET.fromstring(FORMATS["junit"](report)).iter("failure")
    assert (failure.get("type"), failure.text) == ("too little power", text)
    suites = ET.fromstring(FORMATS["junit"](report))
    assert (suites.get("tests"), suites.get("failures")) == ("4", "1")
    (found,) = json.loads(FORMATS["sarif"](report))["runs"][0]["results"]
    assert (found["ruleId"], found["level"]) == ("robustness-low-power", "error")
    assert json.loads(FORMATS["json"](report))["findings"] == [{"code": "too little power", "text": text}]
    assert "! the check cannot detect" in FORMATS["markdown"](report)
    assert "::error title=too little power::the check cannot detect" in as_annotations(report)


def test_a_model_that_learned_nothing_has_a_rule_of_its_own():
    report = check(
        candidate(model(table(), above_chance=False)), None, Rules().then((), ("clean=0.1",), None)
    )
    results = json.loads(FORMATS["sarif"](report))["runs"][0]["results"]
    assert {found["ruleId"] for found in results} == {"robustness-untrained"}
    assert {each["status"] for each in json.loads(FORMATS["json"](report))["results"]} == {"untrained"}
