"""Wherever a call takes a spec, it takes the attack or the defense itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from toys import build_toy_model, draw_toy_images

from robustbench_tin import bench, evaluate, perturb
from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.fgsm import FGSM
from robustbench_tin.attacks.mi_fgsm import MIFGSM
from robustbench_tin.attacks.pgd import PGD
from robustbench_tin.benchmarks.commands.fool import fool
from robustbench_tin.benchmarks.commands.transfer import transfer
from robustbench_tin.defenses import parse_defense
from robustbench_tin.defenses.augment import Augment
from robustbench_tin.defenses.none import NoDefense
from robustbench_tin.errors import InvalidSettingError

TIMES = ["seconds", "train_seconds"]


@dataclass(frozen=True)
class Unregistered(Attack):
    """Has no name, so no file can name it."""

    def gradients(self, budgets: int) -> int:
        return 0

    def run(self, attacked, labels, ball, generator):
        return ball.images


def test_bench_takes_attacks_and_defenses(small: dict) -> None:
    both = parse_defense("augment+jpeg:quality=60")
    run = bench(**{**small, "attacks": [FGSM(), PGD(steps=2)], "defenses": [NoDefense(), both], "epochs": 1})
    assert run.complete
    assert run.plan.attacks == ("fgsm", "pgd:steps=2")
    assert run.plan.defenses == ("none", "augment+jpeg:quality=60")
    # The same command with specs finds nothing to do.
    again = bench(**{**small, "defenses": "none,augment+jpeg:quality=60", "epochs": 1})
    assert again.plan == run.plan
    pd.testing.assert_frame_equal(again.records, run.records)


def test_bench_takes_one_object_and_a_mixture(small: dict) -> None:
    small |= {"eps": "0.03", "epochs": 1}
    run = bench(**{**small, "attacks": FGSM(), "defenses": Augment()})
    assert (run.plan.attacks, run.plan.defenses) == (("fgsm",), ("augment",))
    mixed = bench(**{**small, "attacks": ["fgsm", PGD(steps=1)], "out": small["out"] / "mixed"})
    assert mixed.plan.attacks == ("fgsm", "pgd:steps=1")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attacks": [3]}, "attacks got 3; expected specs or attacks"),
        ({"attacks": [NoDefense()]}, "attacks got NoDefense.*; expected specs or attacks"),
        ({"defenses": [FGSM()]}, "defenses got FGSM.*; expected specs or defenses"),
        ({"attacks": []}, "attacks got an empty list"),
        ({"attacks": [Unregistered()]}, "register its class with robustbench_tin.attacks.register"),
    ],
)
def test_bench_refuses_other_objects(small: dict, changed: dict, message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        bench(**{**small, **changed})
    assert not small["out"].exists()


def test_evaluate_and_perturb_take_attacks() -> None:
    model, (images, labels) = build_toy_model(), draw_toy_images(12, seed=3)
    given = evaluate(model, images, labels, attacks=[PGD(steps=3)], eps=0.03).records
    named = evaluate(model, images, labels, attacks="pgd:steps=3", eps=0.03).records
    pd.testing.assert_frame_equal(given.drop(columns=TIMES), named.drop(columns=TIMES))
    moved = perturb(model, images, labels, attack=PGD(steps=3), eps=0.03)
    assert torch.equal(moved, perturb(model, images, labels, attack="pgd:steps=3", eps=0.03))


def test_transfer_takes_an_attack(small: dict) -> None:
    run = bench(**{**small, "attacks": "fgsm", "eps": "0.03", "epochs": 1}, seeds="0,1")
    given = transfer(run.path, attack=MIFGSM(steps=2), data=small["data"])
    records = given.transfers.records
    assert set(records["attack"]) == {"mi-fgsm:steps=2"}
    assert len(records) == 2
    again = transfer(run.path, attack="mi-fgsm:steps=2", data=small["data"])
    pd.testing.assert_frame_equal(again.transfers.records, records)


def test_fool_takes_an_attack(run, drawn: Path, tmp_path: Path) -> None:
    options = {"out": tmp_path / "fooling", "data": str(drawn), "split": "val", "device": "cpu"}
    given = fool(run.path, attack=FGSM(), **options)
    assert given.images == 12
    assert fool(run.path, attack="fgsm", **options) == given
    with pytest.raises(InvalidSettingError, match="register its class"):
        fool(run.path, attack=Unregistered(), **{**options, "out": tmp_path / "other"})
