"""No result follows from the wording of a message: all of them reworded, every code is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from faults.no_gradient import quantised
from faults.parts import Before
from torch import Tensor, nn
from toys import Toy, draw_toy_images

from robustbench_tin import bench, evaluate
from robustbench_tin.benchmarks.reporting.results_table import tables
from robustbench_tin.messages import translated


def silent(text: str) -> str:
    """The same for all texts, so that code which decides on a text cannot tell them apart."""
    return "?"


def codes(frame: pd.DataFrame) -> list[list[Any]]:
    """The codes that code decides on."""
    reasons = [None if known is None else [each["code"] for each in known] for known in frame["trust_codes"]]
    return [
        list(row) for row in zip(frame["attack"], frame["eps"], frame["status_code"], reasons, strict=True)
    ]


class Failing(nn.Module):
    """Answers no batch that was moved."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.network, self.images = network, images

    def forward(self, images: Tensor) -> Tensor:
        if not torch.equal(images, self.images[: len(images)]):
            raise RuntimeError("out of luck")
        return self.network(images)


@pytest.mark.parametrize("kind", ["honest", "faulty", "failing", "few"])
def test_evaluate_finds_the_same_whatever_it_says(toy: Toy, kind: str) -> None:
    count = 12 if kind == "few" else 60
    images, labels = draw_toy_images(count, seed=2)
    images = (images * 255).round() / 255
    model = {"faulty": Before(toy.model, quantised), "failing": Failing(toy.model, images)}.get(
        kind, toy.model
    )
    plain = evaluate(model, images, labels, "fgsm,pgd", (0.01, 0.03), trust=True, batch_size=count).records
    with translated(silent):
        other = evaluate(
            model, images, labels, "fgsm,pgd", (0.01, 0.03), trust=True, batch_size=count
        ).records
    assert codes(other) == codes(plain)
    said = {part for trust in other["trust"].dropna() for part in trust.split("; ")}
    assert said <= {"ok", "?", "unchecked: ?"}
    shown = [table.rows for table in tables(plain)]
    with translated(silent):
        assert [table.rows for table in tables(other)] == shown
    if kind != "honest":
        assert codes(plain) != codes(
            evaluate(toy.model, *draw_toy_images(60, seed=2), "fgsm,pgd", (0.01, 0.03)).records
        )


def test_a_bench_ends_with_the_same_records(small: dict[str, Any], tmp_path: Path) -> None:
    small |= {"trust": True, "worst_case": True, "eps": "0.03"}
    plain = bench(**small).records
    with translated(silent):
        other = bench(**{**small, "out": tmp_path / "other"}).records
    assert codes(other) == codes(plain)
