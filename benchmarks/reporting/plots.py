"""``robust-tin curves``: a picture of each cell's training curves."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_tin.atomic import replacing
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.errors import InvalidSettingError, RunError
from robustbench_tin.specs import eps_text
from robustbench_tin.training.curves import Point, read_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg")

# Colours by what is measured; dashes and dots tell apart what shares a panel and a colour.
_TRAIN, _VAL, _FGSM, _PGD = "tab:blue", "tab:orange", "tab:purple", "tab:red"
_LINES = {
    "loss": {
        "train_loss": ("training", _TRAIN, "-"),
        "val_loss": ("validation", _VAL, "-"),
    },
    "accuracy, %": {
        "train_top1": ("training, top-1", _TRAIN, "-"),
        "train_top5": ("training, top-5", _TRAIN, "--"),
        "val_top1": ("validation, top-1", _VAL, "-"),
        "val_top5": ("validation, top-5", _VAL, "--"),
    },
    "top-1 under attack, %": {
        "val_top1": ("validation, clean", _VAL, "-"),
        "val_fgsm": ("validation, FGSM", _FGSM, "-"),
        "val_pgd5": ("validation, PGD-5", _PGD, "-"),
        "monitor_fgsm": ("monitor, FGSM", _FGSM, ":"),
        "monitor_pgd5": ("monitor, PGD-5", _PGD, ":"),
    },
}
_ATTACKED = ("val_fgsm", "val_pgd5", "monitor_fgsm", "monitor_pgd5")


def draw_curves(run: str | Path, *, format: str = "png") -> list[Path]:
    """Draw the training curves of each cell of a run beside its ``curves.csv``; returns the pictures.

    Loss; top-1 and top-5 of training and validation; and, where it was measured, top-1 under FGSM and PGD-5.

    Args:
        run: a run directory, finished or not.
        format: ``png`` or ``svg``.

    Raises:
        InvalidSettingError: for another format, or where matplotlib is not installed.
        RunError: where there are no curves.
    """
    if format not in FORMATS:
        raise InvalidSettingError(f"format got '{format}'; expected {' or '.join(FORMATS)}")
    if find_spec("matplotlib") is None:
        raise InvalidSettingError(
            "matplotlib is not installed, which curves are drawn with; install it with"
            " pip install 'robustbench-tin[curves]'"
        )
    opened = RunDirectory.load(run)
    pictures = []
    for cell in opened.plan.cells():
        file = opened.curves_file(cell)
        if file.exists():
            picture = file.with_suffix(f".{format}")
            _draw(opened, cell, read_curves(file), picture)
            pictures.append(picture)
    if not pictures:
        raise RunError(
            f"run '{opened.path}' has no training curves; they come with each epoch of its bench, unless"
            " with --curves none"
        )
    return pictures


def _draw(run: RunDirectory, cell: Cell, points: list[Point], picture: Path) -> None:
    # Its own figure and canvas, not pyplot's: no window system and no state of the caller's is touched.
    from matplotlib.figure import Figure

    attacked = any(getattr(point, name) is not None for point in points for name in _ATTACKED)
    panels = list(_LINES) if attacked else list(_LINES)[:2]
    figure = Figure(figsize=(4.5 * len(panels), 3.6), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        _draw_panel(axes, panel, points)
    title = cell.label
    threat = run.plan.watched_threat(cell)
    if attacked and threat is not None:
        title += f"; attacks: {threat.norm}, eps {eps_text(threat.eps)}"
    figure.suptitle(title, fontsize="medium")
    with replacing(picture) as temporary:
        figure.savefig(temporary, format=picture.suffix[1:], dpi=150)


def _draw_panel(axes: Axes, panel: str, points: list[Point]) -> None:
    from matplotlib.ticker import MaxNLocator

    scale = 1 if panel == "loss" else 100
    for name, (label, colour, style) in _LINES[panel].items():
        known = [(point.epoch, getattr(point, name)) for point in points if getattr(point, name) is not None]
        if known:
            epochs, values = zip(*known, strict=True)
            axes.plot(
                epochs, [scale * value for value in values], style, color=colour, label=label, marker="."
            )
    axes.set_xlabel("epoch")
    axes.set_title(panel, fontsize="small")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(*((0, None) if panel == "loss" else (0, 101)))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
