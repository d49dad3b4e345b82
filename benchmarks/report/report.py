"""``robust-tin report``: one HTML file that shows runs, made only from their stored results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from robustbench_tin._version import __version__
from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.charts.accuracy_points import (
    AccuracyPoint,
    accuracy_points,
    budgets,
    lowest_at,
)
from robustbench_tin.benchmarks.charts.class_accuracy import ResultsByClass, results_by_class
from robustbench_tin.benchmarks.charts.class_chart import class_rows
from robustbench_tin.benchmarks.charts.curves_chart import curve_rows
from robustbench_tin.benchmarks.charts.eps_chart import eps_chart
from robustbench_tin.benchmarks.charts.pareto_chart import pareto_chart
from robustbench_tin.benchmarks.charts.picture import require_charts
from robustbench_tin.benchmarks.charts.saliency_chart import saliency_chart
from robustbench_tin.benchmarks.charts.shown_run import ShownRun, open_runs
from robustbench_tin.benchmarks.charts.transfer_chart import transfer_chart
from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.benchmarks.report.class_tables import frequent_confusions, worst_classes
from robustbench_tin.benchmarks.report.cost_table import cost_table
from robustbench_tin.benchmarks.report.evidence_figures import gallery_section, saliency_section
from robustbench_tin.benchmarks.report.leaderboard import leaderboard, measurements
from robustbench_tin.benchmarks.report.page import render
from robustbench_tin.benchmarks.report.page_charts import (
    PageChart,
    class_group,
    confusion_group,
    curve_group,
    page_chart,
)
from robustbench_tin.benchmarks.report.run_facts import run_facts
from robustbench_tin.benchmarks.report.trust_section import failures_table, reasons_table, trust_counts
from robustbench_tin.errors import RunError
from robustbench_tin.specs import eps_text

REPORT_FILE = "report.html"
_CHARTS = {
    "eps": eps_chart,
    "pareto": pareto_chart,
    "transfer": transfer_chart,
    "saliency": saliency_chart,
}
_SECTIONS = {
    "leaderboard": "Leaderboard",
    "trust": "Trust",
    "eps": "Accuracy against eps",
    "pareto": "Clean against robust",
    "transfer": "Transfer",
    "curves": "Training curves",
    "classes": "Classes",
    "confusion": "Confusion",
    "gallery": "Gallery",
    "saliency": "Saliency",
    "measurements": "Measurements",
    "cost": "Cost",
    "runs": "Plan and command",
}


def report(
    runs: str | Path | Sequence[str | Path], *, out: str | Path | None = None, cell: str = "*"
) -> Path:
    """Write a report of runs as one HTML file, which loads nothing from other places.

    Args:
        runs: one or several run directories, finished or not.
        out: the HTML file; None: ``report.html`` in the first run's directory.
        cell: name or pattern of the cells to show.

    Returns:
        The file.

    Raises:
        InvalidSettingError: if the packages that it needs are not installed.
        RunError: if a run cannot be read, or has no measurements yet.
    """
    require_charts()
    places = [runs] if isinstance(runs, str | Path) else list(runs)
    shown = open_runs(places, cell)
    file = Path(places[0]) / REPORT_FILE if out is None else Path(out)
    write_text(file, page_of(shown))
    return file


def page_of(runs: Sequence[ShownRun]) -> str:
    """The report of some runs as HTML.

    Raises:
        RunError: if none of them has measurements yet.
    """
    if all(run.records.empty for run in runs):
        raise RunError(f"run '{runs[0].run.path}' has no measurements yet; run its command again")
    return render(_Content(runs).context())


@dataclass(frozen=True)
class _Content:
    """The content of the page."""

    runs: Sequence[ShownRun]

    @cached_property
    def points(self) -> list[AccuracyPoint]:
        """All top-1 accuracies."""
        return [point for run in self.runs for point in accuracy_points(run)]

    @cached_property
    def by_class(self) -> list[ResultsByClass]:
        """Results by class of measurements with predictions."""
        return [each for run in self.runs for each in results_by_class(run, predicted=True)]

    def context(self) -> dict[str, Any]:
        """The values for the templates."""
        charts = self._charts()
        classes = class_rows(self.runs)
        confused = [(each.cell, each.threat, each.confusions()) for each in self.by_class]
        top5 = [point for run in self.runs for point in accuracy_points(run, rank=5)]
        content: dict[str, Any] = {
            "title": "Robustness report",
            "runs": [run_facts(run) for run in self.runs],
            "tiles": self._tiles(),
            "leaderboard": leaderboard(self.runs, self.points),
            "trust": trust_counts(self.runs, self.points),
            "reasons": reasons_table(self.points),
            "failures": failures_table(self.points),
            "notes": [run.qualified(note) for run in self.runs for note in run.run.notes],
            "charts": charts,
            "curves": curve_group(curve_rows(self.runs)),
            "classes": class_group(classes),
            "worst_classes": worst_classes(classes),
            "confusion": confusion_group(self.by_class),
            "confusions": frequent_confusions(confused),
            "gallery": gallery_section(self.runs),
            "saliency": saliency_section(self.runs),
            "measurements": measurements(self.runs, self.points, top5),
            "cost": cost_table(self.runs),
            "maker": f"robust-tin {__version__}",
        }
        groups = [content[name] for name in ("curves", "classes", "confusion")]
        has_charts = bool(charts) or any(group.charts for group in groups)
        return {**content, "has_charts": has_charts, "sections": self._sections(content)}

    def _charts(self) -> dict[str, PageChart]:
        """The charts that have data."""
        found = {}
        for name, make in _CHARTS.items():
            try:
                found[name] = page_chart(name, make(self.runs))
            except RunError:
                continue  # no data of this kind
        return found

    def _sections(self, content: Mapping[str, Any]) -> dict[str, str]:
        """The present sections, with their titles."""
        absent = {name for name in ("eps", "pareto", "transfer") if name not in content["charts"]}
        absent |= {name for name in ("curves", "classes", "confusion") if not content[name].charts}
        absent |= set() if content["gallery"].rows else {"gallery"}
        absent |= set() if content["saliency"].rows or "saliency" in content["charts"] else {"saliency"}
        return {name: title for name, title in _SECTIONS.items() if name not in absent}

    def _tiles(self) -> list[dict[str, str]]:
        """The figures at the top of the page."""
        cells = sum(len(run.cells) for run in self.runs)
        counts = trust_counts(self.runs, self.points)
        tiles = [
            {"title": "Cells", "value": str(cells), "detail": ""},
            {
                "title": "Measurements",
                "value": f"{sum(len(run.records) for run in self.runs):,}",
                "detail": "",
            },
        ]
        if counts.checked:
            detail = f"{counts.unreliable} unreliable, {counts.unchecked} not checked"
            tiles.append({"title": "Reliable figures", "value": str(counts.reliable), "detail": detail})
        eps = budgets(self.points)
        best = self._best(eps[-1]) if eps else None
        if best is not None:
            title = f"Best top-1 at {eps_text(best.eps)}"
            tiles.append({"title": title, "value": f"{best.figure.number} %", "detail": best.cell})
        return tiles

    def _best(self, eps: float) -> AccuracyPoint | None:
        """The highest reliable figure among the cells' lowest accuracies under attack."""
        lows = [
            lowest_at(self.points, cell, eps) for cell in dict.fromkeys(each.cell for each in self.points)
        ]
        sound = [low for low in lows if low is not None and low.trust is not Trust.doubted and low.learned]
        best = max(sound, key=lambda low: low.top1 or 0.0, default=None)
        return best if best is not None and best.top1 else None
