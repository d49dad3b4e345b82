"""The published JSON Schema is that of the records, and fits real ones only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import robust_tin
from jsonschema import Draft202012Validator, ValidationError
from made_runs import drawn, made_run

from robustbench_tin.benchmarks.codes.status import Status, StatusCode
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.record_schema import records_schema, schema_text
from robustbench_tin.benchmarks.runs.records import Record, columns

AGAIN = "run python -m robustbench_tin.benchmarks.runs.record_schema"


@pytest.fixture(scope="module")
def checked() -> Draft202012Validator:
    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a doubted figure and a failed one."""
    failed = Status.of(StatusCode.failed, why="no luck")
    results = {
        ("m1", "none", 0): {("clean", 0.0): drawn(0.9, 1), ("pgd", 0.03): drawn(0.3, 2)},
        ("m1", "jpeg", 0): {("clean", 0.0): drawn(0.9, 3), ("pgd", 0.03): failed},
    }
    doubt = (Reason.of(TrustCode.weaker_than_one_step, name="fgsm", lost=9, won=0, eps=0.03),)
    run = made_run(tmp_path_factory.mktemp("made") / "run", results, trust=doubt)
    run.write_results()
    return run


def test_it_is_current() -> None:
    assert json.loads(schema_text()) == records_schema(), AGAIN
    assert robust_tin("schema").stdout == schema_text()


def test_it_fits_what_a_run_holds_and_what_show_prints(made: Run, checked: Draft202012Validator) -> None:
    files = [*made.path.glob("cells/*/measures/*.json"), made.path / "results.json"]
    assert len(files) == 5
    for file in files:
        checked.validate(json.loads(file.read_text()))
    shown = json.loads(robust_tin("show", made.path, "--format", "json").stdout)
    assert len(shown) == 4
    checked.validate(shown)


def test_it_fits_a_run_that_was_really_measured(run: Run, checked: Draft202012Validator) -> None:
    checked.validate(json.loads((run.path / "results.json").read_text()))


@pytest.mark.parametrize(
    "change",
    [{"top1": 1.5}, {"n": 0}, {"status_code": "fine"}, {"surplus": 1}, {"trust_codes": [{"code": "no"}]}],
)
def test_it_refuses_wrong_records(made: Run, checked: Draft202012Validator, change: dict) -> None:
    (first, *_) = json.loads((made.path / "results.json").read_text())
    with pytest.raises(ValidationError):
        checked.validate([{**first, **change}])


def test_each_field_is_described() -> None:
    schema = json.loads(schema_text())["$defs"]
    assert set(schema["Record"]["properties"]) == set(Record.model_fields)
    assert list(schema["ShownRecord"]["properties"]) == columns(Record)
    for kind in ("Record", "ShownRecord"):
        assert all(len(field["description"]) > 5 for field in schema[kind]["properties"].values())


def test_it_is_in_the_package() -> None:
    root = Path(__file__).resolve().parents[2]
    assert "robustbench_tin.schemas = *.json" in (root / "setup.cfg").read_text()
