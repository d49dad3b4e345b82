"""The notebook docs/tour.ipynb: its code runs, and its stored outputs are of the kind that the code gives."""

from __future__ import annotations

import ast
import json
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustbench_tin.benchmarks.charts.picture import Picture
from robustbench_tin.benchmarks.commands.gallery import WrittenGallery
from robustbench_tin.benchmarks.commands.saliency import WrittenSaliency
from robustbench_tin.benchmarks.comparison.compare import Comparison
from robustbench_tin.benchmarks.evaluation import Evaluation
from robustbench_tin.benchmarks.run import Run

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "tour.ipynb"
LARGEST = 1_000_000


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """The value that the cell displays: of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        tree.body[-1] = ast.Assign([ast.Name("displayed", ast.Store())], last.value)
    names["displayed"] = None
    exec(compile(ast.fix_missing_locations(tree), "cell", "exec"), names)
    return names["displayed"]


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(BytesIO(b64decode(each)))) for each in found]


def test_every_cell_was_run_in_order_without_errors() -> None:
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [each for each in outputs if each["output_type"] == "error" or each.get("name") == "stderr"]
    assert NOTEBOOK.stat().st_size < LARGEST


def test_the_code_runs_and_its_results_display_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("captum", "altair", "vl_convert", "jinja2"):
        pytest.importorskip(package, reason=f"{package} is not installed (the extras `report`, `saliency`)")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown: dict[type, Any] = {}
    for cell in code_cells():
        value = run_cell("".join(cell["source"]), names)
        stored = [each for each in cell["outputs"] if each["output_type"] == "execute_result"]
        assert bool(stored) == (value is not None)
        assert all(("text/html" in each["data"]) == hasattr(value, "_repr_html_") for each in stored)
        shown[type(value)] = value
    assert {Run, Comparison, Picture, WrittenGallery, WrittenSaliency, Evaluation} <= set(shown)
    tables_show_the_figures(shown)
    pictures_are_the_images(shown[WrittenGallery], shown[WrittenSaliency])


def tables_show_the_figures(shown: dict[type, Any]) -> None:
    run, comparison = shown[Run], shown[Comparison]
    for accuracy in run.records["top1"]:
        assert f">{100 * accuracy:.1f}" in run._repr_html_()
    for difference in comparison.frame["difference"]:
        assert f">{100 * difference:+.1f}" in comparison._repr_html_()
    assert "fgsm 4/255" in repr(comparison)


def pictures_are_the_images(gallery: WrittenGallery, saliency: WrittenSaliency) -> None:
    expected = [
        each
        for image in gallery.gallery.images
        for each in (image.clean, image.perturbation, image.adversarial)
    ]
    found = pictures(gallery._repr_html_())
    assert len(found) == len(expected) > 0
    assert all(map(np.array_equal, found, expected))
    maps = [image for result in saliency.results for image in result.images]
    assert len(pictures(saliency._repr_html_())) == 2 * len(maps) > 0
