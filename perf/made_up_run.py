"""A run directory of any size with made-up results, for tests and timings of code that reads runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.planning.given_models import GivenModel
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.image_labels import write_labels
from robustbench_tin.benchmarks.runs.records import CLEAN, WORST_CASE, make_record
from robustbench_tin.benchmarks.runs.training_files import Trained
from robustbench_tin.benchmarks.runs.transfer_records import TransferRecord

DOUBT = Reason.of(TrustCode.not_converged, late_successes=7, images=100)


def make_run(
    path: Path,
    *,
    models: Sequence[str] = ("resnet50", "mobilenet"),
    defenses: Sequence[str] = ("none", "bbox-crop", "fgsm-at"),
    seeds: Sequence[int] = (0,),
    attacks: Sequence[str] = ("fgsm", "pgd"),
    eps: Sequence[float] = (0.0, 2 / 255, 4 / 255, 8 / 255),
    images: int = 200,
    classes: int = 10,
    epochs: int = 3,
    transfers: int = 2,
    given: bool = False,
    names: Sequence[str] = (),
) -> Run:
    """Write a finished run whose figures follow from one random margin for each image and cell.

    Args:
        path: a new directory.
        models: backbones, or with ``given`` names of trained models.
        defenses: specs.
        seeds: of the cells.
        attacks: specs; the second is stronger than the first, and so on.
        eps: budgets, 0 among them.
        images: number of evaluated images.
        classes: number of classes.
        epochs: number of rows of the training curves; 0 writes none.
        transfers: also write transfers between this number of cells.
        given: the models were given, not trained; then only the defense ``none`` is right.
        names: of the classes; made up if there are none.
    """
    plan = Plan(
        data="made-up",
        data_fingerprint="0123456789abcdef",
        classes=classes,
        train_images=0 if given else 10 * classes,
        eval_images=images,
        models=tuple(models),
        defenses=tuple(defenses),
        seeds=tuple(seeds),
        attacks=tuple(attacks),
        eps=tuple(eps),
        norm="linf",
        search="fixed",
        worst_case=len(attacks) > 1,
        trust=True,
        epochs=(0 if given else epochs,) * len(models),
        batch_size=0 if given else 24,
        weights=None,
        device="cpu",
        plugins=(),
        given=tuple(
            GivenModel(name=name, spec="timm:resnet18", weights="", outputs=classes, image_size=64)
            for name in models
            if given
        ),
    )
    labels = np.random.default_rng(0).integers(0, classes, images)
    known = {f"n{number:08}": names[number] if names else f"class {number}" for number in range(classes)}
    with Run.begun(path, plan) as run:
        write_labels(path, plan, labels.tolist(), known)
        for number, cell in enumerate(plan.cells()):
            _fill(run, cell, number, labels)
            if epochs and not given:
                _write_curves(run.curves_file(cell), number, epochs)
        transferred = list(plan.cells())[:transfers]
        for source, target in permutations(transferred, 2):
            _transfer(run, source, target, labels)
        run.write_results()
    return run


def _fill(run: Run, cell: Cell, number: int, labels: npt.NDArray[np.int64]) -> None:
    weights = run.weights_file(cell)
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file({"head.bias": np.arange(4.0) + number}, weights)
    run.save_trained(cell, Trained(seconds=None if run.plan.given else 12.5 + number))
    margins = _margins(number, cell, len(labels))
    clean_right = int((margins > 0).sum()) / len(labels)
    for attack, eps in run.measures(cell):
        found = _measurement(run.plan, number, attack, eps, margins, labels)
        doubt = attack == run.plan.attacks[0] and eps == max(run.plan.eps) and number % 2 == 1
        record = make_record(found, attack=attack, **_facts(run.plan, cell, clean_right)).model_copy(
            update={"trust": None if attack == CLEAN else (DOUBT,) if doubt else ()}
        )
        run.save_measure(cell, record, found)


def _margins(number: int, cell: Cell, images: int) -> npt.NDArray[np.float64]:
    """A distance from the decision boundary for each image, in units of the pixel range; below 0: wrong."""
    random = np.random.default_rng((number, cell.seed))
    level = 0.004 + 0.012 * ("at" in cell.defense) + 0.002 * (number % 5)
    return random.normal(level, 0.012, images)


def _measurement(
    plan: Plan,
    number: int,
    attack: str,
    eps: float,
    margins: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
) -> Measurement:
    place = len(plan.attacks) if attack == WORST_CASE else plan.attacks.index(attack) if eps else 0
    strength = 0.5 + 0.5 * (place + 1) / (len(plan.attacks) + 1)
    right = margins > strength * eps
    random = np.random.default_rng((number, place))
    other = (labels + random.integers(1, max(2, plan.classes), len(labels))) % plan.classes
    predicted = np.where(right, labels, other).astype(np.int32)
    return Measurement(
        eps,
        right,
        margins > 0.4 * strength * eps - 0.01,
        OK,
        2.0 + eps * 100,
        len(labels) * 11,
        len(labels) * 10 if eps else 0,
        predicted=None if attack == WORST_CASE else predicted,
    )


def _facts(plan: Plan, cell: Cell, clean_right: float) -> dict[str, Any]:
    return {
        "model": cell.model,
        "defense": cell.defense,
        "seed": cell.seed,
        "norm": plan.norm,
        "above_chance": clean_right > 1.5 / plan.classes,
        "n": plan.eval_images,
        "classes": plan.classes,
        "data": plan.data,
        "data_fingerprint": plan.data_fingerprint,
        "image_size": 64,
        "network_size": None if plan.given else 64,
        "epochs": None if plan.given else plan.epochs[0],
        "train_seconds": None if plan.given else 12.5,
        "train_precision": None if plan.given else "float32",
        "device": plan.device,
    }


def _transfer(run: Run, source: Cell, target: Cell, labels: npt.NDArray[np.int64]) -> None:
    number = list(run.plan.cells()).index(target)
    eps = max(run.plan.eps)
    right = _margins(number, target, len(labels)) > 0.2 * eps
    found = Measurement(eps, right, right, OK, 1.0, len(labels), 0)
    record = make_record(found, attack="mi-fgsm", **_facts(run.plan, target, 1.0))
    origin = {"source_model": source.model, "source_defense": source.defense, "source_seed": source.seed}
    run.transfers.save(TransferRecord(**record.model_dump(), **origin), found)


def _write_curves(file: Path, number: int, epochs: int) -> None:
    head = "epoch,train_loss,train_top1,train_top5,val_loss,val_top1,val_top5,val_fgsm,val_pgd5"
    lines = [f"{head},monitor_fgsm,monitor_pgd5"]
    for epoch in range(1, epochs + 1):
        rate = 1 - 0.8 / (epoch + 0.1 * number)
        lines.append(
            f"{epoch},{2.3 / epoch:.4f},{rate:.4f},{rate**0.5:.4f},{2.5 / epoch:.4f},{0.9 * rate:.4f},"
            f"{(0.9 * rate) ** 0.5:.4f},,,,"
        )
    file.write_text("\n".join(lines) + "\n")
