"""Run directories with results that are made up, so that no test needs to train anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_tin.benchmarks.codes.status import OK, Status
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.records import CLEAN, make_record
from robustbench_tin.benchmarks.runs.training_files import Trained

IMAGES = 200

Key = tuple[str, str, int]
Hits = np.ndarray


def drawn(rate: float, seed: int, images: int = IMAGES) -> Hits:
    """Results per image: each is right with this probability."""
    return np.random.default_rng(seed).random(images) < rate


def made_run(
    path: Path,
    results: Mapping[Key, Mapping[tuple[str, float], Hits | Status]],
    *,
    trust: tuple[Reason, ...] = (),
    classes: int = 10,
    fingerprint: str = "aaaa",
    **settings: Any,
) -> Run:
    """A finished run.

    Args:
        path: of its directory.
        results: by model, defense and seed: by attack and eps the top-1 results, or why there are none.
        trust: the verdict on each figure under attack.
        classes: of the data set.
        fingerprint: of the data set.
        settings: other fields of the plan.
    """
    models, defenses, seeds = (tuple(dict.fromkeys(part)) for part in zip(*results, strict=True))
    keys = list(dict.fromkeys(key for measures in results.values() for key in measures))
    first = next(hits for measures in results.values() for hits in measures.values())
    images = len(first) if isinstance(first, np.ndarray) else IMAGES
    plan = Plan(
        **{
            "data": "made",
            "data_fingerprint": fingerprint,
            "classes": classes,
            "train_images": 10,
            "eval_images": images,
            "models": models,
            "defenses": defenses,
            "seeds": seeds,
            "attacks": tuple(dict.fromkeys(attack for attack, _ in keys if attack != CLEAN)),
            "eps": tuple(sorted({eps for _, eps in keys})),
            "search": "auto",
            "epochs": (1,) * len(models),
            "batch_size": 8,
            "weights": None,
            "device": "cpu",
            "plugins": (),
            **settings,
        }
    )
    with Run.begun(path, plan) as run:
        for cell in plan.cells():
            _fill(run, cell, results[cell.model, cell.defense, cell.seed], trust)
    return run


def _fill(
    run: Run, cell: Cell, results: Mapping[tuple[str, float], Hits | Status], trust: tuple[Reason, ...]
) -> None:
    plan = run.plan
    run.weights_file(cell).parent.mkdir(parents=True)
    run.weights_file(cell).write_bytes(b"no real weights")
    run.save_trained(cell, Trained(seconds=1.0))
    for (attack, eps), hits in results.items():
        taken = isinstance(hits, np.ndarray)
        found = Measurement(
            eps,
            hits if taken else None,
            (hits | drawn(0.5, 9, len(hits))) if taken else None,
            OK if taken else hits,
            1.0,
            1,
            1,
        )
        facts = {
            **{name: getattr(plan, name) for name in ("norm", "eot", "oblivious", "eight_bit")},
            **{"data": plan.data, "data_fingerprint": plan.data_fingerprint, "measured_on": "same"},
            **{"image_size": 8, "network_size": None, "epochs": 1, "train_seconds": 1.0},
            **{"train_precision": "float32", "device": "cpu"},
        }
        record = make_record(
            found,
            n=plan.eval_images,
            classes=plan.classes,
            model=cell.model,
            defense=cell.defense,
            seed=cell.seed,
            attack=attack,
            above_chance=True,
            **facts,
        )
        if attack != CLEAN:
            record = record.model_copy(update={"trust": trust})
        run.save_measure(cell, record, found)
