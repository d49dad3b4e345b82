"""Plans on disk: those of earlier versions are read, and keep their fingerprint and digest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from robustbench_tin.benchmarks.planning.plan import Plan

FIRST: dict[str, Any] = {
    "data": "tin",
    "data_fingerprint": "0123456789abcdef",
    "classes": 10,
    "train_images": 500,
    "eval_images": 50,
    "models": ["mobilenet", "resnet50"],
    "defenses": ["none", "fgsm-at"],
    "seeds": [0, 1],
    "attacks": ["fgsm", "pgd:steps=20"],
    "eps": [0.0, 4 / 255],
    "norm": "linf",
    "search": "auto",
    "eot": 1,
    "oblivious": False,
    "eight_bit": False,
    "worst_case": True,
    "epochs": [15, 12],
    "batch_size": 24,
    "lr": 1e-6,
    "image_size": None,
    "pretrained": False,
    "weights": None,
    "device": "cpu",
    "precision": None,
    "plugins": ["mine.py 0123456789abcdef"],
}
LATER = {"trust": True, "sources": ["vgg16"], "epochs": [15, 12, 9], "optimizer": "sgd", "compile": True}
LATER |= {"early_stop": 3, "progressive": 0.5, "norm": "l2", "certified": ["none"], "processes": 2}


def read(values: dict[str, Any]) -> Plan:
    return Plan.model_validate_json(json.dumps(values), strict=True)


@pytest.mark.parametrize(
    ("values", "fingerprint", "digest"),
    [(FIRST, "320bb8ce", "96b23b84b0d1ce50"), (FIRST | LATER, "a0dd4c3e", "f90acf077efde4bc")],
)
def test_a_plan_keeps_its_hashes(values: dict[str, Any], fingerprint: str, digest: str) -> None:
    plan = read(values)
    assert (plan.fingerprint, plan.digest) == (fingerprint, digest)
    assert read(json.loads(plan.model_dump_json())) == plan


def test_a_setting_that_is_no_default_changes_both_hashes() -> None:
    plan = read(FIRST)
    for name, value in {"clip_norm": 2.0, "seeds": (0, 2), "eight_bit": True, "average": "ema"}.items():
        other = plan.model_copy(update={name: value})
        assert other.fingerprint != plan.fingerprint
        assert other.digest != plan.digest


@pytest.mark.parametrize("missing", ["attacks", "eps", "search", "epochs", "batch_size", "device", "plugins"])
def test_a_plan_without_a_resolved_option_is_refused(missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        read({name: value for name, value in FIRST.items() if name != missing})


@pytest.mark.parametrize("name", ["deterministic", "interpolation", "cut", "out", "shine"])
def test_what_is_no_field_of_a_plan_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        read(FIRST | {name: None})


def test_backbones_may_see_images_at_sizes_of_their_own() -> None:
    plan = read(FIRST | {"sizes": [None, 32]})
    assert [plan.size_of(name) for name in ("mobilenet", "resnet50")] == [None, 32]
    assert plan.fingerprint != read(FIRST).fingerprint
    assert read(FIRST | {"image_size": 48}).size_of("resnet50") == 48
    with pytest.raises(ValidationError, match="1 sizes for 2 backbones"):
        read(FIRST | {"sizes": [32]})
