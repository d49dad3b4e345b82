"""``robust-tin plot``: draw runs as svg, png or pdf."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from robustbench_tin.benchmarks.charts.class_chart import class_chart
from robustbench_tin.benchmarks.charts.curves_chart import curves_chart
from robustbench_tin.benchmarks.charts.eps_chart import eps_chart
from robustbench_tin.benchmarks.charts.pareto_chart import pareto_chart
from robustbench_tin.benchmarks.charts.picture import Picture, require_charts, require_format
from robustbench_tin.benchmarks.charts.saliency_chart import saliency_chart
from robustbench_tin.benchmarks.charts.shown_run import ShownRun, open_runs
from robustbench_tin.benchmarks.charts.transfer_chart import transfer_chart
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.options import either


class Kind(StrEnum):
    """The kind of a picture."""

    curves = "curves"
    eps = "eps"
    pareto = "pareto"
    classes = "classes"
    transfer = "transfer"
    saliency = "saliency"


CHARTS: dict[Kind, Callable[[Sequence[ShownRun]], Picture]] = {
    Kind.curves: curves_chart,
    Kind.eps: eps_chart,
    Kind.pareto: pareto_chart,
    Kind.classes: class_chart,
    Kind.transfer: transfer_chart,
    Kind.saliency: saliency_chart,
}


def plot(runs: str | Path | Sequence[str | Path], *, kind: str, out: str | Path, cell: str = "*") -> Path:
    """Draw runs and write the picture to a file.

    Args:
        runs: one or several run directories, finished or not.
        kind: ``curves`` (training), ``eps`` (accuracy against eps), ``pareto`` (clean against robust),
            ``classes`` (accuracy by class), ``transfer`` (heat map) or ``saliency`` (attribution inside the
            box).
        out: a file whose name ends in .svg, .png or .pdf.
        cell: name or pattern of the cells to show.

    Returns:
        The file.

    Raises:
        InvalidSettingError: for an unknown kind or suffix, or if the drawing packages are not installed.
        RunError: if a run cannot be read, or has no data of this kind.
    """
    file = Path(out)
    require_format(file)
    draw(runs, kind=kind, cell=cell).save(file)
    return file


def draw(runs: str | Path | Sequence[str | Path], *, kind: str, cell: str = "*") -> Picture:
    """Draw runs; a notebook shows the picture.

    Args:
            runs: see :func:`plot`.
            kind: see :func:`plot`.
            cell: see :func:`plot`.

        Raises:
            RobustTinError: see :func:`plot`.
    """
    if kind not in set(Kind):
        raise InvalidSettingError(f"kind got '{kind}'; expected {either(list(Kind))}")
    require_charts()
    places = [runs] if isinstance(runs, str | Path) else list(runs)
    return CHARTS[Kind(kind)](open_runs(places, cell))
