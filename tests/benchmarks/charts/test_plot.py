"""``robust-tin plot``: pictures of each kind and format, and one line for each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from robustbench_tin.benchmarks.charts import picture
from robustbench_tin.benchmarks.charts.plot import CHARTS, Kind, plot
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.evidence.saliency import SaliencyShare
from robustbench_tin.benchmarks.evidence.saliency_files import SaliencyResult, write_saliency
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.errors import InvalidSettingError, RunError

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

SAYS = {
    "curves": ("epoch", "validation", "top-5, %"),
    "eps": ("eps (L∞; pixel values from 0 to 1)", "top-1 accuracy, %", "8/255", "worst-case"),
    "pareto": ("clean top-1 accuracy, %", "lowest top-1 under attack, %", "L∞ eps 8/255"),
    "classes": ("top-1 accuracy, %", "class 3", "under attack"),
    "transfer": ("columns: measured on; rows: made on", "mi-fgsm, L∞ eps 8/255"),
}


@pytest.mark.parametrize("kind", SAYS)
def test_a_picture_names_its_axes_and_cells(made: Run, kind: str, tmp_path: Path) -> None:
    text = plot(made.path, kind=kind, out=tmp_path / "picture.svg", cell="resnet50/*").read_text()
    for expected in (*SAYS[kind], "resnet50 + bbox-crop" if kind != "pareto" else "bbox-crop"):
        assert f">{expected}" in text or f"{expected}<" in text, expected


def test_several_runs_share_a_picture(made: Run, seeded: Run, tmp_path: Path) -> None:
    text = plot([made.path, seeded.path], kind="eps", out=tmp_path / "both.svg", cell="*/none").read_text()
    for name in ("first: resnet50 + none", "first: mobilenet + none", "second: vgg16 + none"):
        assert name in text


def test_many_cells_get_a_row_of_panels_a_backbone(made: Run) -> None:
    few, many = [ShownRun("", made)], [ShownRun("a", made), ShownRun("b", made)]
    assert "row" not in CHARTS[Kind.eps](few).specification()["facet"]
    specification = CHARTS[Kind.eps](many).specification()
    assert specification["facet"]["row"]["sort"] == [
        f"{run}: {model}" for run in "ab" for model in ("resnet50", "mobilenet")
    ]


def test_formats(made: Run, tmp_path: Path) -> None:
    for suffix, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        file = plot(made.path, kind="pareto", out=tmp_path / f"picture.{suffix}")
        assert file.read_bytes().startswith(start)


def test_saliency_is_drawn_once_it_is_measured(made: Run, seeded: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no saliency was measured; run robust-tin saliency RUN first"):
        plot(made.path, kind="saliency", out=tmp_path / "picture.svg")
    for seed in range(3):
        cell = f"vgg16/none/{seed}"
        shares = tuple(
            SaliencyShare(cell, "grad-cam", 40, mean, mean - 0.05, mean + 0.05, kind, chance=0.3)
            for kind, mean in (("clean", 0.5), ("adversarial", 0.4))
        )
        result = SaliencyResult(
            cell=cell,
            method="grad-cam",
            settings={},
            weights_digest="",
            classes=(),
            shares=shares,
            image_shares=(),
        )
        write_saliency(seeded.path, result, [])
    text = plot(seeded.path, kind="saliency", out=tmp_path / "picture.svg").read_text()
    for expected in ("grad-cam", "attribution inside the box, %", "adversarial", "vgg16 + none"):
        assert expected in text


def test_mistakes_are_one_line(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettingError, match=r"out got 'a\.gif'; expected a file name that ends in"):
        plot(made.path, kind="eps", out="a.gif")
    with pytest.raises(InvalidSettingError, match="kind got 'pie'; expected curves, eps, pareto, classes"):
        plot(made.path, kind="pie", out="a.svg")
    monkeypatch.setattr(picture, "find_spec", lambda name: None)
    with pytest.raises(InvalidSettingError, match=r"altair, .* pip install 'robustbench-tin\[report\]'"):
        plot(made.path, kind="eps", out=tmp_path / "a.svg")


def test_the_command_needs_no_torch(made: Run, tmp_path: Path) -> None:
    code = (
        "import sys; from robustbench_tin.benchmarks.charts.plot import plot;"
        f"plot({str(made.path)!r}, kind='curves', out={str(tmp_path / 'a.svg')!r});"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "a.svg").exists()
