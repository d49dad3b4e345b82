"""The script that draws the README's pictures, on a small run."""

from __future__ import annotations

import runpy
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from robustbench_tin import bench

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "pictures.py"


def test_the_pictures_are_drawn_and_load_nothing(small_folder: Path, tmp_path: Path) -> None:
    run = bench(
        models="timm:test_resnet",
        data=str(small_folder),
        attacks="pgd:steps=3",
        eps="0,0.3",
        epochs=6,
        device="cpu",
        trust=False,
        deterministic=True,
        out=tmp_path / "run",
    )
    terminal, gallery, chart = runpy.run_path(str(SCRIPT))["draw_all"](run.path, tmp_path / "pictures")
    for file in (terminal, chart):
        text = file.read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert "@import" not in text
        assert "url(http" not in text
    assert "test_resnet" in terminal.read_text(encoding="utf-8")
    with Image.open(gallery) as picture:
        assert picture.height == 3 * 2 * 16  # three images of 16 px, one above the other, twice as large
        assert picture.width % (2 * 16) == 0
