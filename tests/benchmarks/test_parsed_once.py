"""A spec is parsed once, and a process does not read back its own files."""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import pandas as pd
import pytest

from robustbench_tin import bench, defenses
from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.fgsm import FGSM
from robustbench_tin.attacks.pgd import PGD
from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.benchmarks.planning.parsed_specs import ParsedSpecs
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.planning.resolve import resolve
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.files import DamagedError, read_json, read_results
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.defenses import parse_defense
from robustbench_tin.models import select
from robustbench_tin.progress import Reporter
from robustbench_tin.registry import Registry
from robustbench_tin.specs import parse_spec
from robustbench_tin.training.stages import parse_stages

COUNTED = (parse_attack, parse_defense, parse_spec, parse_stages, Registry.get, read_json, read_results)


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Calls of the counted functions, under any name that a module gives them."""
    calls: Counter[str] = Counter()
    names = {function.__code__: function.__qualname__ for function in COUNTED}

    def on_event(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code in names:
            calls[names[frame.f_code]] += 1

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        yield calls
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("more", [{}, {"trust": True, "worst_case": True, "curves": "robust"}])
def test_a_bench_parses_each_spec_once_and_reads_nothing_back(small: dict, more: dict) -> None:
    with counted_calls() as calls:
        run = bench(**{**small, **more})
    assert run.complete
    assert calls == {
        "parse_attack": 2,
        "parse_defense": 1,
        # The name of the backbone is matched as a pattern, then looked up.
        "Registry.get": 2 + 1 + 1,
        # The plan's check makes a recipe, and so do the time estimate and the one training.
        "parse_stages": 3,
        "parse_spec": 2 + 1 + 2 + 3,
    }


def test_a_second_cell_costs_no_more_than_its_recipe(small: dict) -> None:
    with counted_calls() as calls:
        run = bench(**small, seeds="0,1")
    assert run.complete
    assert (calls["parse_attack"], calls["parse_defense"], calls["Registry.get"]) == (2, 1, 4)
    assert calls["parse_stages"] == 4
    assert calls["read_json"] == calls["read_results"] == 0


def test_after_the_run_its_files_are_read_from_the_disk(small: dict) -> None:
    run = bench(**small)
    cell = next(run.plan.cells())
    before = run.records
    with counted_calls() as calls:
        pd.testing.assert_frame_equal(Run.load(run.path).records, before)
    assert calls["read_results"] == run.plan.measures
    results = next((run.path / "cells" / cell.slug / "measures").glob("pgd*.parquet"))
    results.write_bytes(b"something else")
    for opened in (run, Run.load(run.path)):
        with pytest.raises(DamagedError, match=r"pgd.*\.parquet' is damaged"):
            opened.records  # noqa: B018


def test_what_is_kept_is_what_a_file_holds(small: dict) -> None:
    """Records and results that were written under the lock are those that another object reads."""
    run = bench(**small)
    cell = next(run.plan.cells())
    record = run.record(cell, "fgsm", 0.03)
    with run.locked():
        kept = run.save_record(cell, record.model_copy(update={"remarks": ("kept",)}))
        with counted_calls() as calls:
            assert run.record(cell, "fgsm", 0.03) is kept
        assert Run.load(run.path).record(cell, "fgsm", 0.03) == kept
        assert calls["read_json"] == 1  # of training.json, which was written before
        run.drop_measure(cell, "fgsm", 0.03)
        assert run.record(cell, "fgsm", 0.03) is None


def plan_of(**options: object) -> Plan:
    return resolve(BenchConfig(**options), Reporter(), find_trained)[0]


def test_a_plan_from_a_file_gives_the_same_objects(small: dict) -> None:
    plan = plan_of(**small)
    with counted_calls() as calls:
        read = Plan.model_validate_json(plan.model_dump_json())
        assert read == plan == copy.deepcopy(plan)
    assert not calls
    with counted_calls() as calls:
        for _ in range(2):
            assert read.attack("pgd:steps=2") == plan.attack("pgd:steps=2") == PGD(steps=2)
            assert read.defense("none") == plan.defense("none")
            assert read.backbone("timm:test_resnet") == plan.backbone("timm:test_resnet")
    assert (calls["parse_attack"], calls["parse_defense"], calls["Registry.get"]) == (1, 1, 3)
    assert read.attack("pgd:steps=2") is read.attack("pgd:steps=2")


def test_parsed_specs_are_equal_and_copied_empty() -> None:
    known = ParsedSpecs.of([FGSM()], [], [])
    assert known == ParsedSpecs() == copy.deepcopy(known)
    with counted_calls() as calls:
        assert known.attack("fgsm") == copy.deepcopy(known).attack("fgsm")
    assert calls["parse_attack"] == 1


@dataclass(frozen=True)
class Remembering(defenses.Defense):
    """Keeps state on itself while it trains."""

    def prepare(self, train, context):
        assert "trained" not in vars(self)
        object.__setattr__(self, "trained", True)
        return train


def test_cells_do_not_share_the_state_of_a_defense(small: dict) -> None:
    if "remembering" not in defenses.registry.names():
        defenses.register("remembering")(Remembering)
    run = bench(**{**small, "attacks": "fgsm", "eps": "0"}, defenses="remembering", seeds="0,1")
    assert run.complete
    assert len(run.records) == 2


def test_select_leaves_names_to_one_lookup() -> None:
    with counted_calls() as calls:
        assert select("timm:test_resnet,vgg16") == ["timm:test_resnet", "vgg16"]
    assert calls == {"parse_spec": 2}
