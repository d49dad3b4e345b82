"""The result of ``evaluate``, and every form of data that it takes."""

from __future__ import annotations

import copy
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toys import Toy
from typer.testing import CliRunner

from robustbench_tin import evaluate, perturb
from robustbench_tin.benchmarks.evaluation import Evaluation
from robustbench_tin.benchmarks.reporting.html import table_html
from robustbench_tin.benchmarks.reporting.results_table import tables
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader
from robustbench_tin.cli.app import app
from robustbench_tin.data import open_dataset
from robustbench_tin.errors import DataError, InvalidSettingError, RunError

OPTIONS: dict[str, Any] = {"attacks": "fgsm", "eps": 0.03}


@pytest.fixture(scope="module")
def found() -> Evaluation:
    """A linear model of ten classes on noise, under one attack at two budgets."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    images = torch.rand(20, 3, 8, 8)
    return evaluate(model, images, model(images).argmax(1), "fgsm", (0.01, 0.03), name="a<b>", trust=True)


@pytest.fixture(scope="module")
def ten() -> nn.Module:
    """A model of the demo set's ten classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 10))


def figures(evaluation: Evaluation) -> pd.DataFrame:
    return evaluation.records.drop(columns="seconds")


def test_every_form_of_images_with_labels_is_the_same(toy: Toy) -> None:
    expected = figures(evaluate(toy.model, toy.images, toy.labels, **OPTIONS))
    pairs = TensorDataset(toy.images, toy.labels)
    for data in (
        (toy.images, toy.labels),
        [toy.images.numpy(), toy.labels.tolist()],
        (toy.images, range(0)) if len(toy.labels) == 0 else (toy.images, toy.labels.numpy()),
        pairs,
        DataLoader(pairs, batch_size=7),
    ):
        assert figures(evaluate(toy.model, data, **OPTIONS)).equals(expected)
    named = evaluate(toy.model, images=toy.images, labels=toy.labels, **OPTIONS)
    assert figures(named).equals(expected)


def test_a_function_is_a_model(toy: Toy) -> None:
    expected = evaluate(toy.model, toy.images, toy.labels, **OPTIONS).records
    given = evaluate(lambda images: toy.model(images), (toy.images, toy.labels), **OPTIONS).records
    assert given.top1.tolist() == expected.top1.tolist()


def test_a_data_set_by_name_is_its_validation_images(ten: nn.Module) -> None:
    by_name = evaluate(ten, "demo", eval_images=40, **OPTIONS)
    assert set(by_name.records.data) == {"demo"}
    assert set(by_name.records.n) == {40}
    part = open_dataset("demo")
    opened = evaluate(ten, part, eval_images=40, **OPTIONS)
    assert figures(opened).equals(figures(by_name))
    assert evaluate(ten, part.val, **OPTIONS).records.n[0] == len(part.val)
    whole = evaluate(ten, "demo", attacks=[], eps=0)
    assert whole.records.n.tolist() == [200]  # as bench does
    assert any(line.startswith("DEMO SET") for line in by_name.table().notes)


def test_the_path_of_an_npz_file_and_the_order_of_classes(tmp_path: Path, ten: nn.Module) -> None:
    dice = np.random.default_rng(0)
    images, labels = dice.integers(0, 256, (12, 64, 64, 3), np.uint8), np.arange(12) % 10
    np.savez(tmp_path / "a.npz", x=images, y=labels)
    plain = evaluate(ten, images.transpose(0, 3, 1, 2), labels, **OPTIONS).records
    named = evaluate(ten, f"npz:{tmp_path / 'a.npz'}", **OPTIONS).records
    assert named.top1.tolist() == plain.top1.tolist()
    order = tmp_path / "order.txt"
    order.write_text("".join(f"{name}\n" for name in range(9, -1, -1)))
    turned = evaluate(ten, f"npz:{tmp_path / 'a.npz'}", class_order=order, **OPTIONS).records
    expected = evaluate(ten, images.transpose(0, 3, 1, 2), 9 - labels, **OPTIONS).records
    assert turned.top1.tolist() == expected.top1.tolist()


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({}, InvalidSettingError, "got neither of data and images"),
        ({"data": "demo", "images": "demo"}, InvalidSettingError, "got both of data and images"),
        ({"data": "demo", "labels": [0]}, InvalidSettingError, "got labels and a data set"),
        ({"data": "dmeo"}, DataError, "unknown data set 'dmeo'; did you mean 'demo'"),
        (
            {"data": torch.rand(1, 3, 64, 64), "labels": [0], "eval_images": 1},
            InvalidSettingError,
            "name of a",
        ),
        (
            {"data": torch.rand(1, 3, 64, 64), "labels": [0], "class_order": "sorted"},
            InvalidSettingError,
            "name",
        ),
        ({"data": "demo", "eval_images": 0}, InvalidSettingError, "eval_images=0"),
    ],
)
def test_data_that_is_none(ten: nn.Module, given: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        evaluate(ten, **given)


def test_it_shows_the_table_of_its_records(found: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    (expected,) = tables(found.records)
    assert found.table() == expected
    assert found.table(intervals=True).rows != expected.rows
    monkeypatch.setenv("COLUMNS", "200")
    text = repr(found)
    for part in ("Accuracy in % under fgsm", "a<b>", "▼", "100.0"):
        assert part in text
    monkeypatch.setenv("COLUMNS", "70")
    narrow = repr(found)
    assert max(map(len, narrow.splitlines())) <= 70
    assert "Left out at this width" in narrow
    assert "\x1b" not in text + narrow


class Cells(HTMLParser):
    """Collects the texts of table cells."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        self.open = tag in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.rows[-1].append(data)

    def handle_endtag(self, tag: str) -> None:
        self.open = False


def test_a_notebook_gets_the_same_table_as_html(found: Evaluation) -> None:
    cells = Cells()
    cells.feed(found._repr_html_())
    table = found.table()
    assert cells.rows == [list(table.columns), *map(list, table.rows)]
    assert "<b>" not in found._repr_html_()


def test_html_is_escaped() -> None:
    page = table_html(Table("<i>", ("<u>",), (("<script>\x1b",),), 1, notes=("a & b",)))
    assert "&lt;i&gt;" in page
    assert "&lt;u&gt;" in page
    assert "&lt;script&gt;\\x1b" in page
    assert "a &amp; b" in page


def test_it_is_saved_as_a_run_that_show_reads(found: Evaluation, tmp_path: Path) -> None:
    place = found.save(tmp_path / "a" / "saved")
    run = Run.load(place)
    assert run.complete
    assert run.records.equals(found.records)
    assert run.tables == [found.table()]
    (cell,) = run.plan.cells()
    for (attack, eps), rows in found.images.groupby(["attack", "eps"], sort=False):
        outcomes = run.outcomes(cell, attack, eps)
        assert outcomes.top1.tolist() == rows.top1.tolist()
        assert outcomes.top5.tolist() == rows.top5.tolist()
        assert rows.label.tolist() == found.labels.tolist()
    shown = CliRunner().invoke(app, ["show", str(place), "--format", "markdown"])
    assert shown.exit_code == 0
    assert shown.output.strip() == (place / "results.md").read_text().strip()
    assert "done" in CliRunner().invoke(app, ["runs", str(tmp_path / "a")]).output
    found.save(place)
    assert Run.load(place).records.equals(found.records)
    with pytest.raises(RunError, match="does not say where model 'a<b>' is"):
        CellLoader(run, 8, "cpu").load(cell)


def test_it_is_not_saved_over_anything_else(found: Evaluation, toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match="is not empty and is not a run"):
        found.save(tmp_path)
    place = found.save(tmp_path / "saved")
    other = evaluate(toy.model, toy.images, toy.labels, **OPTIONS)
    with pytest.raises(RunError, match="holds a run with another plan"):
        other.save(place)


def test_an_attack_that_judges_one_rank_has_no_other(toy: Toy, tmp_path: Path) -> None:
    evaluation = evaluate(toy.model, toy.images, toy.labels, "pgd:criterion=top1,steps=2", 0.03)
    images = evaluation.images
    assert images.top5[images.attack != "clean"].isna().all()
    assert images.top1.notna().all()
    assert Run.load(evaluation.save(tmp_path / "saved")).records.equals(evaluation.records)


def test_a_model_without_gradients_is_saved_with_what_stood_in(toy: Toy, tmp_path: Path) -> None:
    def blind(images: torch.Tensor) -> torch.Tensor:
        return toy.model(images).detach()

    evaluation = evaluate(blind, toy.images[:8], toy.labels[:8], "fgsm", 0.03)
    saved = Run.load(evaluation.save(tmp_path / "saved"))
    assert saved.records.equals(evaluation.records)
    assert "square" in evaluation.records.attack.iloc[-1]


def test_code_that_takes_it_for_a_frame_gets_the_records(found: Evaluation) -> None:
    assert found["top1"].equals(found.records["top1"])
    assert found.top1.tolist() == [row.top1 for row in found.itertuples()]
    assert found.set_index("attack").equals(found.records.set_index("attack"))
    assert len(found) == len(found.records)
    assert list(found) == list(found.records.columns)
    assert copy.copy(found).records.equals(found.records)
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        found.nothing  # noqa: B018


def test_perturb_at_one_budget_has_no_axis_for_budgets(toy: Toy) -> None:
    images, labels = toy.images[:4], toy.labels[:4]
    several = perturb(toy.model, images, labels, "fgsm", (0.03,))
    assert several.shape == (1, *images.shape)
    for eps in (0.03, "0.03", np.float64(0.03), torch.tensor(0.03, dtype=torch.float64)):
        assert torch.equal(perturb(toy.model, images, labels, "fgsm", eps), several[0])
    assert perturb(toy.model, images, labels, "pgd:criterion=top1,steps=2", 0.03).shape == images.shape


def test_a_measurement_says_nothing_on_its_own(toy: Toy) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(toy.model, toy.images, toy.labels, **OPTIONS)


def test_printing_in_a_notebook_gives_text(found: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    """rich displays by itself in a notebook, and a text would stay empty."""
    expected = repr(found)
    assert expected
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert repr(found) == expected
