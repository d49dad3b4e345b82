"""One attack's result as a check of another's: the figures of a cell compared with each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from faults.no_gradient import quantised
from faults.parts import Before
from toys import Toy, draw_toy_images

from robustbench_tin import evaluate
from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.runs.records import CLEAN, WORST_CASE, make_record
from robustbench_tin.benchmarks.trust.judge import judge
from robustbench_tin.benchmarks.trust.measured import Measured

IMAGES = 100
EPS = 0.03
FAST = "fast leaves 21 of 100 images right at eps 0.03, and this attack leaves {}: rely on fast"


def taken(spec: str, left: int | None, left5: int | None, *, images: int = IMAGES) -> Measured:
    """A measurement with the first ``left`` images right; None: it has no result for this criterion."""
    hits = [None if count is None else np.arange(images) < count for count in (left, left5)]
    own = None if spec in (CLEAN, WORST_CASE) else parse_attack(spec)
    queries_alone = spec == CLEAN or (own is not None and not own.needs_gradients)
    outcomes = Measurement(
        0.0 if spec == CLEAN else EPS,
        hits[0],
        hits[1],
        OK,
        0.0,
        30 * images,
        0 if queries_alone else images,
    )
    facts = {
        **{"model": "net", "defense": "none", "seed": 0, "norm": "linf", "data": "drawn", "device": "cpu"},
        **{"data_fingerprint": "", "image_size": 16, "network_size": None, "epochs": None},
        **{"train_seconds": None, "train_precision": None},
    }
    record = make_record(outcomes, n=images, classes=10, attack=spec, above_chance=True, **facts)
    return Measured(record, *hits)


def trusts(toy: Toy, table: Mapping[str, tuple[int | None, int | None]]) -> dict[str, str]:
    """The verdicts on a table of made-up measures; those of the probe are of the toy."""
    pixels, labels = draw_toy_images(IMAGES, seed=3)
    batches = ImageBatches(pixels, labels, 50, torch.device("cpu"))
    measures = [taken(CLEAN, 95, 100), *(taken(spec, *counts) for spec, counts in table.items())]
    records = judge(toy.model, batches, measures, AttackProtocol()).records
    return {record.attack: "" if record.trust is None else str(record.verdict) for record in records}


def test_a_figure_says_which_other_refutes_it(toy: Toy) -> None:
    found = trusts(toy, {"pgd": (41, 60), "mi-fgsm": (36, 60), "fast": (21, None)})
    # The strongest is named, once; it is refuted by none.
    assert FAST.format(41) in found["pgd"]
    assert FAST.format(36) in found["mi-fgsm"]
    assert found["pgd"].count("rely on") == 1
    assert "rely on" not in found["fast"]


def test_one_that_claims_less_is_not_refuted(toy: Toy) -> None:
    found = trusts(toy, {"fgsm": (60, 80), "square": (70, None), "noise": (94, 99), "fast": (21, None)})
    assert not any("rely on fast" in trust for trust in found.values())


def test_one_that_claims_less_may_refute(toy: Toy) -> None:
    # Exact tests of queries and of single steps need more images than the size of a difference does.
    found = trusts(toy, {"pgd": (14, 60), "square": (8, None)})
    assert "square succeeds and this attack fails on 6 of 100 images" in found["pgd"]
    assert "rely on" not in found["pgd"]
    found = trusts(toy, {"pgd": (14, 60), "fgsm": (8, 60)})
    assert (
        "fgsm leaves 8 of 100 images right at eps 0.03, and this attack leaves 14: rely on fgsm"
        in found["pgd"]
    )


def test_a_worst_case_has_its_attacks_in_it(toy: Toy) -> None:
    found = trusts(toy, {"pgd": (41, 60), "fast": (21, None), WORST_CASE: (21, 60)})
    assert "rely on" not in found[WORST_CASE]
    assert "rely on worst-case" not in found["pgd"]


def test_only_outcomes_of_the_same_criterion_are_compared(toy: Toy) -> None:
    top5 = "apgd-t:criterion=top5"
    found = trusts(toy, {"pgd": (41, 80), top5: (None, 40)})
    # A fixed budget is after top-1; that it leaves more in the top 5 is no fault of it.
    assert "rely on" not in found["pgd"]
    assert "rely on" not in found[top5]
    found = trusts(toy, {"pgd": (41, 40), top5: (None, 80)})
    assert (
        "pgd leaves 40 of 100 images right at eps 0.03, and this attack leaves 80: rely on pgd" in found[top5]
    )


@pytest.mark.parametrize("spec", ["noise", "noise:restarts=5"])
def test_an_attack_no_better_than_noise_says_so(toy: Toy, spec: str) -> None:
    counts = f"{spec} succeeds on 10 of 95 images at eps 0.03, and this attack on 10"
    said = f"{counts}: it is hardly better than chance"
    found = trusts(toy, {"pgd": (85, 99), spec: (85, 99)})
    assert said in found["pgd"]
    assert "chance" not in found[spec]
    assert "chance" not in trusts(toy, {"pgd": (60, 90), spec: (85, 99)})["pgd"]
    # By its own criterion: noise took one image out of the top 5.
    assert (
        "chance"
        not in trusts(toy, {"apgd-t:criterion=top5": (None, 99), spec: (85, 99)})["apgd-t:criterion=top5"]
    )


def test_what_is_refuted_is_marked_end_to_end(toy: Toy) -> None:
    pixels, labels = draw_toy_images(IMAGES, seed=3)
    weak = "pgd:alpha=0.002,steps=5"
    frame = evaluate(toy.model, pixels, labels, f"{weak},apgd-ce", EPS, trust=True).records
    rows = frame.set_index("attack")
    left, other = (round(IMAGES * rows.loc[attack, "top1"]) for attack in (weak, "apgd-ce"))
    assert (
        f"apgd-ce leaves {other} of 100 images right at eps 0.03, and this attack leaves {left}"
        in rows.loc[weak, "trust"]
    )
    assert rows.loc["apgd-ce", "trust"] == "ok"


def test_an_attack_that_is_lost_without_gradients_is_no_better_than_noise(toy: Toy) -> None:
    pixels, labels = draw_toy_images(IMAGES, seed=3)
    frame = evaluate(Before(toy.model, quantised), pixels, labels, "pgd,noise", 0.5, trust=True).records
    rows = frame.set_index("attack")
    assert "is hardly better than chance" in rows.loc["pgd", "trust"]
    assert "chance" not in rows.loc["noise", "trust"]
