"""A report of runs with results that are made up, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_tin.benchmarks.evidence.choices import Rule
from robustbench_tin.benchmarks.evidence.gallery import Gallery, GalleryImage, magnified
from robustbench_tin.benchmarks.evidence.gallery_files import FOLDER, write_gallery
from robustbench_tin.benchmarks.evidence.saliency import SaliencyImage, SaliencyShare
from robustbench_tin.benchmarks.evidence.saliency_files import SaliencyResult, write_saliency
from robustbench_tin.benchmarks.run import Run

sys.path.append(str(Path(__file__).parents[3]))  # perf is no part of the package

from perf.made_up_run import make_run

HOSTILE = "<script>alert(1)</script>"
"""A name that would be markup if the page did not escape it."""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two backbones with three defenses, and evidence of one cell; tests only read it."""
    run = make_run(
        tmp_path_factory.mktemp("made") / "trained", names=[f"thing {n}, other" for n in range(10)]
    )
    add_evidence(run)
    return run


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained model and classes whose names are markup."""
    return make_run(
        tmp_path_factory.mktemp("hostile") / "given",
        models=[HOSTILE, "net\"'></td>&amp;"],
        defenses=["none"],
        eps=(0.0, 0.01),
        classes=3,
        given=True,
        names=["<b>bold</b>", "</script><script>alert(2)</script>", "${alert(3)}{{7*7}}"],
    )


@pytest.fixture(scope="session")
def page_file(made: Run, hostile: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of both runs."""
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    from robustbench_tin.benchmarks.report.report import report

    return report([made.path, hostile.path], out=tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which(os.environ.get("ROBUST_TIN_CHROMIUM", "chromium"))
    if program is None:
        pytest.skip("no chromium found; Debian's package chromium has it, ROBUST_TIN_CHROMIUM names another")
    with api.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


def add_evidence(run: Run) -> None:
    """Write a gallery of two images and a saliency result of one cell."""
    random = np.random.default_rng(0)
    cell = next(run.plan.cells())
    name = f"{cell.model}/{cell.defense}/{cell.seed}"
    clean = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    adversarial = np.clip(clean.astype(int) + random.integers(-8, 9, clean.shape), 0, 255).astype(np.uint8)
    perturbation, factor = magnified(clean, adversarial)
    images = [
        GalleryImage(
            name, "pgd", 8 / 255, "linf", index, "random", 1, 1, 0.91, 2, 0.77, 8 / 255, clean, perturbation,
            adversarial, factor,
        )
        for index in (3, 5)
    ]  # fmt: skip
    classes = tuple(f"thing {number}" for number in range(10))
    write_gallery(Gallery(Rule.random, 0, classes, images, ()), run.path / FOLDER)
    share = SaliencyShare(name, "grad-cam", 40, 0.52, 0.47, 0.57, chance=0.3)
    heat = random.integers(0, 256, (16, 16), dtype=np.uint8)
    picture = SaliencyImage(name, "grad-cam", 3, 1, "clean", clean, heat, (2, 3, 9, 10), 0.52, 1)
    result = SaliencyResult(
        cell=name,
        method="grad-cam",
        settings={},
        weights_digest="",
        classes=(),
        shares=(share,),
        image_shares=(),
    )
    write_saliency(run.path, result, [picture])
