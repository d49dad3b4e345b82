"""``robust-tin saliency``: measure the attribution of a run's cells, stored in the run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from robustbench_tin.benchmarks.evidence.choices import Method
from robustbench_tin.benchmarks.evidence.explain import CellSaliency, SaliencySettings, explain_run
from robustbench_tin.benchmarks.evidence.overlay import saliency_html, write_saliency_page
from robustbench_tin.benchmarks.evidence.pictures import inline
from robustbench_tin.benchmarks.evidence.saliency import SaliencyShare
from robustbench_tin.benchmarks.evidence.saliency_differences import (
    ShareDifference,
    differences,
    differences_table,
)
from robustbench_tin.benchmarks.evidence.saliency_files import write_saliency
from robustbench_tin.benchmarks.evidence.saliency_table import saliency_table
from robustbench_tin.benchmarks.reporting.html import table_html
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.progress import Reporter
from robustbench_tin.text import printable
from robustbench_tin.threat import Budgets


@dataclass(frozen=True)
class WrittenSaliency:
    """The result of ``saliency``; a notebook shows it.

    Attributes:
        shares: the shares of every cell and kind of image.
        pages: the HTML pages with the maps, one per cell.
        results: the results of each cell.
    """

    shares: Sequence[SaliencyShare]
    pages: Sequence[Path]
    results: Sequence[CellSaliency] = field(repr=False)

    @property
    def differences(self) -> list[ShareDifference]:
        """Differences of the share to the first cell, on the same images."""
        return differences([each.result for each in self.results])

    def _repr_html_(self) -> str:
        maps = "".join(
            f"<h4>{escape(printable(each.result.cell))}</h4>"
            f"{saliency_html(each.images, each.result.classes, inline)}"
            for each in self.results
            if each.images
        )
        compared = table_html(differences_table(self.differences)) if self.differences else ""
        return (table_html(saliency_table(self.shares)) if self.shares else "") + compared + maps


def saliency(
    run: str | Path,
    *,
    method: str = Method.saliency,
    cells: str | None = None,
    attack: str | None = None,
    eps: Budgets | None = None,
    count: int = 200,
    pictures: int = 8,
    seed: int = 0,
    layer: str = "",
    reporter: Reporter | None = None,
    **opening: Any,
) -> WrittenSaliency:
    """Measure the attribution of a run's cells: its share inside the object's box.

    Shares, their intervals and the maps of some images are stored in ``RUN/saliency``. An earlier result of
    the same cell and method is replaced.

    Args:
        run: a run directory.
        method: ``saliency``, ``integrated-gradients`` or ``grad-cam``.
        cells: see :func:`robustbench_tin.benchmarks.evidence.explain.explain_run`, also for ``attack``,
            ``eps`` and the others.
        count: number of images; only images with a usable box if the data set has boxes.
        pictures: number of images whose maps are written.
        seed: seed of the choice.
        layer: name of the module that ``grad-cam`` explains; empty: the last feature map.
        reporter: shows progress; None: silent.

    Raises:
        RobustTinError: see :func:`~robustbench_tin.benchmarks.evidence.explain.explain_run`.
    """
    reporter = reporter or Reporter()
    try:
        settings = SaliencySettings(Method(method), count, pictures, seed, layer)
    except ValueError:
        raise InvalidSettingError(f"method got '{method}'; expected {', '.join(Method)}") from None
    shares: list[SaliencyShare] = []
    results: list[CellSaliency] = []
    pages: list[Path] = []
    found = explain_run(run, settings, cells=cells, attack=attack, eps=eps, reporter=reporter, **opening)
    for each in found:
        folder = write_saliency(Path(run), each.result, each.images)
        pages.append(write_saliency_page(each.images, each.result.classes, folder))
        shares += each.result.shares
        results.append(each)
        for note in each.notes:
            reporter.warn(f"{each.result.cell}: {note}.")
    return WrittenSaliency(shares, pages, results)
