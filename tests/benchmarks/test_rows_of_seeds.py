"""Several seeds as one row: means, spread, and an interval that covers seeds and images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from table_records import codes, row

from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.reporting.results_table import tables
from robustbench_tin.benchmarks.reporting.seed_interval import interval_over_seeds, wilson
from robustbench_tin.metrics import interval


def seeds(**changed: dict[int, object]) -> pd.DataFrame:
    """Three seeds, clean 80, 82 and 84 %, under fgsm 30, 32 and 37 %; ``changed`` by field and seed."""
    made = []
    for seed, (clean, attacked) in enumerate([(0.80, 0.30), (0.82, 0.32), (0.84, 0.37)]):
        more = {field: values[seed] for field, values in changed.items() if seed in values}
        made.append(row("net", "clean", 0.0, clean, seed=seed))
        made.append(row("net", "fgsm", 8 / 255, attacked, seed=seed, **more))
    return pd.DataFrame(made)


def test_one_row_has_the_mean_the_standard_deviation_and_the_mean_drop() -> None:
    (table,) = tables(seeds())
    assert table.columns[:5] == ("model", "defense", "seeds", "top-1 clean", "top-1 eps 8/255")
    assert table.rows == (("net", "none", "3", *["82.0 ± 2.0", "33.0 ± 3.6 ▼49.0"] * 2),)
    assert any("over seeds and images" in note for note in table.notes)
    assert "± standard deviation over seeds" in table.legend()[0]


def test_per_seed_each_has_its_row() -> None:
    (table,) = tables(seeds(), per_seed=True)
    assert table.columns[2] == "seed"
    assert [line[2:5] for line in table.rows] == [
        ("0", "80.0", "30.0 ▼50.0"),
        ("1", "82.0", "32.0 ▼50.0"),
        ("2", "84.0", "37.0 ▼47.0"),
    ]
    assert "±" not in table.markdown()


def test_a_doubt_of_one_seed_marks_the_row_and_the_note_names_the_seed() -> None:
    few = Reason.of(TrustCode.few_images, images=8, needed=20)
    (table,) = tables(seeds(trust_codes={0: [few.model_dump(mode="json")], 2: codes("gradients are zero")}))
    assert table.rows[0][4] == "33.0! ± 3.6 ▼49.0"
    assert table.notes[-2:] == (
        "! gradients are zero (net + none, seed 2, fgsm at 8/255)",
        f"? unchecked: {few} (net + none, seed 0)",
    )
    (table,) = tables(seeds(trust_codes={0: [few.model_dump(mode="json")], 1: []}))
    assert table.rows[0][4] == "33.0? ± 3.6 ▼49.0"


def test_seeds_that_did_not_learn_mark_and_dim_the_row_and_are_named() -> None:
    records = seeds()
    records.loc[records["seed"] == 1, "above_chance"] = False
    (table,) = tables(records)
    assert table.rows[0][3] == "1 not learned"
    assert table.dimmed == {0}
    assert "not learned: net + none, seed 1" in table.notes
    records["above_chance"] = False
    (table,) = tables(records)
    assert table.rows[0][3] == "not learned"
    assert "not learned: net + none, seeds 0, 1, 2" in table.notes


def test_a_seed_that_failed_is_counted_out_and_its_reason_told() -> None:
    records = seeds()
    gone = (records["seed"] == 2) & (records["attack"] == "fgsm")
    failed = row("net", "fgsm", 8 / 255, None, seed=2, status="failed: no luck")
    (table,) = tables(pd.concat([records[~gone], pd.DataFrame([failed])]))
    # The drop is of the same two seeds, whose clean figures are 80 and 82.
    assert table.rows[0][3:5] == ("82.0 ± 2.0", "31.0 ± 1.4 (2 of 3 seeds) ▼50.0")
    assert "net + none, seed 2, fgsm at 8/255: failed: no luck" in table.notes
    assert "(n of m seeds)" in table.legend()[0]
    every = records.assign(status="failed: no luck", status_code="failed", top1=None, top5=None)
    (table,) = tables(every)
    assert table.rows[0][3:5] == ("failed", "failed")


def test_remarks_of_any_seed_are_kept() -> None:
    (table,) = tables(seeds(remark_list={1: ["batch norm was found to be wrong"]}))
    assert "batch norm was found to be wrong" in table.notes


def test_one_seed_alone_has_its_own_interval() -> None:
    (table,) = tables(seeds().query("seed == 0"), intervals=True)
    assert "seeds" not in table.columns
    assert table.rows[0][3] == "30.0 ▼50.0 [20.0, 40.0]"
    assert table.notes[0] == "95 % intervals reach at most 10.0 points either way."


@pytest.mark.parametrize(("right", "images"), [(0, 20), (1, 20), (50, 100), (500, 500), (333, 1000)])
def test_wilson_s_interval_is_that_of_the_records(right: int, images: int) -> None:
    assert wilson(right / images, images) == pytest.approx(interval(right, images), abs=1e-9)


def test_the_interval_of_one_seed_is_wilson_s_and_spread_only_widens_it() -> None:
    assert interval_over_seeds([0.3], 50) == wilson(0.3, 50)
    assert interval_over_seeds([0.3, 0.3, 0.3], 50) == pytest.approx(wilson(0.3, 50))
    low, high = interval_over_seeds([0.2, 0.3, 0.4], 50)
    # t of 2 degrees of freedom is 4.303: 4.303 × 0.1 / √3 = 0.2484 beside Wilson's reach.
    assert low == pytest.approx(0.3 - np.hypot(0.3 - wilson(0.3, 50)[0], 0.24841), abs=1e-4)
    assert high == pytest.approx(0.3 + np.hypot(wilson(0.3, 50)[1] - 0.3, 0.24841), abs=1e-4)
    assert interval_over_seeds([0.0, 0.2, 0.0], 20)[0] == 0.0


@pytest.mark.parametrize(
    ("accuracy", "spread", "trainings"), [(0.3, 0.05, 3), (0.6, 0.02, 5), (0.05, 0.01, 3)]
)
def test_the_interval_covers_the_accuracy_of_other_seeds_on_other_images(
    accuracy: float, spread: float, trainings: int
) -> None:
    """Trainings with accuracies of their own, on a sample of images that all of them share."""
    random, images, rounds = np.random.default_rng(0), 200, 1000
    covered = 0
    for _ in range(rounds):
        difficulty = random.random(images)
        levels = random.normal(accuracy, spread, trainings)
        rates = [float((difficulty < level).mean()) for level in levels]
        low, high = interval_over_seeds(rates, images)
        covered += low <= accuracy <= high
    assert covered / rounds >= 0.94
