"""Run directories: plan, trainings, weights, records, results per image and transfers."""

from __future__ import annotations

import io
import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import save_file

from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.gate.baseline import make_baseline
from robustbench_tin.benchmarks.gate.candidate import from_run
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.reporting.terminal import TerminalTable
from robustbench_tin.benchmarks.run import Run, records_csv, records_json
from robustbench_tin.benchmarks.runs.image_labels import read_labels, write_labels
from robustbench_tin.benchmarks.runs.records import CLEAN, make_record
from robustbench_tin.benchmarks.runs.repair import repair
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.benchmarks.runs.training_files import Trained
from robustbench_tin.benchmarks.runs.transfer_records import TransferRecord
from robustbench_tin.benchmarks.trust.transfer_check import doubt_beaten
from robustbench_tin.errors import RobustTinError
from robustbench_tin.progress import Reporter

IMAGES = 12
ATTACK, EPS = "mi-fgsm", 0.03
_DIGESTS = ("digest", "plan_digest", "weights_digest", "source_weights_digest", "results_digest", "cell")


@cache
def seeds() -> list[dict[str, bytes]]:
    """A finished run, and the same as an earlier version wrote it: without digests."""
    with tempfile.TemporaryDirectory() as place:
        run = make_run(Path(place) / "run")
        tied = files_of(run.path)
        for file in run.path.glob("*/**/*.json"):
            content = json.loads(file.read_text())
            file.write_text(json.dumps({name: content[name] for name in content if name not in _DIGESTS}))
        return [tied, files_of(run.path)]


def read(folder: Path) -> None:
    """As ``show``, ``report``, ``baseline``, ``check``, ``predict``, ``transfer`` and ``bench`` read it."""
    refused: RobustTinError | None = None
    for look in (_show, _labels, _judge, _load, _repair):
        try:
            look(folder)
        except RobustTinError as error:
            refused = refused or error
    if refused is not None:
        raise refused


def make_run(path: Path) -> Run:
    """A run of two cells with figures that are made up."""
    plan = Plan(
        data="drawn",
        data_fingerprint="aaaa",
        classes=10,
        train_images=20,
        eval_images=IMAGES,
        models=("timm:test_resnet",),
        defenses=("none",),
        seeds=(0, 1),
        attacks=("pgd:steps=2",),
        eps=(0.0, EPS),
        norm="linf",
        search="fixed",
        eot=1,
        oblivious=False,
        eight_bit=False,
        worst_case=False,
        trust=True,
        epochs=(1,),
        batch_size=8,
        lr=None,
        image_size=None,
        pretrained=False,
        weights=None,
        device="cpu",
        precision=None,
        plugins=(),
    )
    with Run.begun(path, plan) as run:
        write_labels(
            path,
            plan,
            [each % 10 for each in range(IMAGES)],
            {str(each): f"class {each}" for each in range(10)},
        )
        for cell in plan.cells():
            _fill(run, cell)
        first, second = plan.cells()
        _transfer(run, first, second)
        run.write_results()
    return run


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a run that are read again, by relative path."""
    kept = {".json", ".parquet", ".safetensors"}
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.suffix in kept and not file.name.startswith("results")
    }


def _fill(run: Run, cell: Cell) -> None:
    weights = run.weights_file(cell)
    weights.parent.mkdir(parents=True)
    about = {"backbone": cell.model, "num_classes": "10", "image_size": "64", "resize_to": "64"}
    save_file({"head.bias": torch.arange(10.0) + cell.seed}, weights, about)
    run.save_trained(cell, Trained(lr=0.1, precision="float32", network_size=64, loss=1.0))
    run.save_search_variants(cell, {"pgd:steps=2": ["float32", "channels last"]})
    for attack, eps in run.measures(cell):
        outcomes = _outcomes(eps, IMAGES - 1 if attack == CLEAN else 5 + cell.seed)
        record = make_record(outcomes, attack=attack, **_facts(cell), trust=None if attack == CLEAN else ())
        run.save_measure(cell, record, outcomes)


def _transfer(run: Run, source: Cell, target: Cell) -> None:
    outcomes = _outcomes(EPS, 4)
    made = make_record(outcomes, attack=ATTACK, **_facts(target))
    origin = {"source_model": source.model, "source_defense": source.defense, "source_seed": source.seed}
    run.transfers.save(TransferRecord(**made.model_dump(), **origin), outcomes)


def _outcomes(eps: float, right: int) -> Measurement:
    top1 = np.arange(IMAGES) < right
    return Measurement(eps, top1, np.arange(IMAGES) < min(IMAGES, right + 2), OK, 0.5, IMAGES, 0)


def _facts(cell: Cell) -> dict[str, object]:
    return {
        **{"model": cell.model, "defense": cell.defense, "seed": cell.seed, "norm": "linf", "n": IMAGES},
        **{
            "classes": 10,
            "above_chance": True,
            "data": "drawn",
            "data_fingerprint": "aaaa",
            "image_size": 64,
        },
        **{"network_size": 64, "epochs": 1, "train_seconds": 1.0, "train_precision": "float32"},
        "device": "cpu",
    }


def _show(folder: Path) -> None:
    run = Run.load(folder)
    for table in (*run.tables, *run.transfers.tables):
        table.markdown()
        Console(file=io.StringIO(), width=80).print(TerminalTable(table))
    records = run.records
    records_csv(records)
    records_json(records)
    run.plan.describe()
    assert all(isinstance(note, str) for note in run.notes)


def _labels(folder: Path) -> None:
    run = Run.load(folder)
    known = read_labels(run.path, run.plan)
    if known is not None:
        assert all(isinstance(known.name(label), str) for label in known.labels)


def _judge(folder: Path) -> None:
    make_baseline([from_run(folder)])
    doubt_beaten(Run.load(folder))


def _load(folder: Path) -> None:
    for cell in Run.load(folder).plan.cells():
        find_trained(folder / cell.slug)


def _repair(folder: Path) -> None:
    run = Run.load(folder)
    with run.locked():
        repair(run, Reporter())
    assert isinstance(run.tables, list)
