"""Made-up results for the gate, so that no test needs to train anything."""

from __future__ import annotations

import numpy as np

from robustbench_tin.benchmarks.codes.status import OK, Status
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.gate.candidate import Candidate, CandidateMeasurement, CandidateModel
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.runs.records import CLEAN, make_record

IMAGES = 400
DATA = {"data": "drawn", "data_fingerprint": "aaaa", "measured_on": "bbbb"}


def right(count: int, images: int = IMAGES) -> np.ndarray:
    """``count`` right images, spread over the whole set."""
    hits = np.zeros(images, dtype=bool)
    hits[np.random.default_rng(7).permutation(images)[:count]] = True
    return hits


def reasons(text: str) -> tuple[Reason, ...]:
    """Those of some texts with ``; `` between them; any other text is one of an earlier version."""
    parts = [part.removeprefix("unchecked: ") for part in text.split("; ")]
    return () if text == "ok" else tuple(reason for part in parts if (reason := Reason.parse(part)))


def figure(
    attack, eps, hits, *, seed=0, status=OK, trust="unset", above_chance=True, **facts
) -> CandidateMeasurement:
    """A measure with these outcomes; under attack it was checked and found trustworthy."""
    status = Status.parse(status) if isinstance(status, str) else status
    taken = status == OK
    trust = (None if attack == CLEAN else ()) if trust == "unset" else trust
    if isinstance(trust, str):
        trust = reasons(trust)
    outcomes = Measurement(
        eps, hits if taken else None, None, status, 0.0, 0, 0, mode=facts.pop("mode", "fixed budget")
    )
    settings = {
        **{
            "model": "net",
            "defense": "none",
            "seed": seed,
            "norm": "linf",
            "above_chance": above_chance,
            "image_size": 8,
        },
        **{
            "network_size": None,
            "epochs": None,
            "train_seconds": None,
            "train_precision": None,
            "device": "cpu",
        },
        **DATA,
        **facts,
    }
    record = make_record(outcomes, n=len(hits), classes=10, attack=attack, **settings)
    record = record.model_copy(update={"trust": trust, "above_chance": above_chance})
    return CandidateMeasurement(record, hits if taken else None)


def model(hits: dict, *, seed=0, weights="w0", name="net", defense="none", **facts) -> CandidateModel:
    """A trained model; ``hits`` maps (attack, eps) to outcomes."""
    figures = tuple(
        figure(attack, eps, outcomes, seed=seed, model=name, defense=defense, **facts)
        for (attack, eps), outcomes in hits.items()
    )
    return CandidateModel(name, defense, seed, weights, figures)


def candidate(*models: CandidateModel, **settings) -> Candidate:
    """A run, as it were."""
    return Candidate("runs/made-up", models, {"epochs": "8", **settings}, "robust-tin 1", "runs/made-up")


def table(clean=340, fgsm=240, pgd=200) -> dict:
    """Three measurements with these numbers of right images of 400."""
    return {(CLEAN, 0.0): right(clean), ("fgsm", 0.03): right(fgsm), ("pgd", 0.03): right(pgd)}
