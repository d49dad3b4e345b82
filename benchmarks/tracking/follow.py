"""Send the new content of a run directory to a tracker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from robustbench_tin.benchmarks.cells.cell_progress import is_complete
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.files import file_digest
from robustbench_tin.benchmarks.runs.records import Record
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.benchmarks.tracking.figures import (
    curve_values,
    describe_cell,
    describe_run,
    figures_of,
    overall_tags,
    tags_of,
)
from robustbench_tin.benchmarks.tracking.memory import Memory, Told
from robustbench_tin.benchmarks.tracking.tracker import Description, End, TrackedRun, Tracker
from robustbench_tin.training.curves import Point, read_curves

_RESULTS = ("results.md", "results.csv", "results.json")


class Follower:
    """Compares a run directory with the data already sent to a tracker, and sends the difference.

    It only reads files, so any process may produce the results. After a failure, the next look sends all
    that is missing.

    Args:
        path: the run directory.
        tracker: the tracker.
    """

    def __init__(self, path: Path, tracker: Tracker) -> None:
        self._run = RunDirectory.load(path)
        self._name = path.absolute().name
        self._tracker = tracker
        self._memory = Memory(path / "tracking" / f"{tracker.name}.json", tracker.place)
        if not tracker.keeps_all:
            self._memory.doubt()
        self._open: dict[str, TrackedRun] = {}
        self._settled: set[Cell] = set()

    def look(self) -> None:
        """Send the new data of the cells that are not complete."""
        for cell in self._run.plan.cells():
            if cell not in self._settled:
                self._tell_cell(cell)

    def end(self, how: End) -> None:
        """Send the rest, including the tables, and close all tracked runs.

        Args:
            how: how the run ended; complete cells count as finished in any case.
        """
        self._settled.clear()  # a late trust check changes records that were complete before
        self.look()
        for cell in self._run.plan.cells():
            told = self._memory.of(cell.slug)
            if told.id:
                self._close(told, self._end_of(cell, how), self._cell(cell))
        whole = self._memory.of()
        self._attach([self._run.path / name for name in _RESULTS], whole)
        complete = how is not End.finished or self._run.complete
        self._close(whole, how if complete else End.failed, self._whole)

    def _tell_cell(self, cell: Cell) -> None:
        told = self._memory.of(cell.slug)
        points, records = self._points(cell), self._records(cell)
        if self._is_new(told, points, records):
            tracked = self._cell(cell)()
            told.ended = None
            self._tell_curves(tracked, told, points)
            self._tell_records(tracked, told, records)
        elif records and is_complete(self._run, cell):
            self._close(told, End.finished, self._cell(cell))
            self._settled.add(cell)

    def _end_of(self, cell: Cell, how: End) -> End:
        """How a cell ended, if its run ended like this."""
        if is_complete(self._run, cell):
            return End.finished
        failed = any(record.status != OK for record in self._records(cell))
        return End.failed if failed or how is End.finished else how

    @staticmethod
    def _is_new(told: Told, points: Sequence[Point], records: Sequence[Record]) -> bool:
        late = bool(points) and points[-1].epoch > told.epoch
        return late or any(told.digests.get(_key(record)) != record.digest for record in records)

    def _tell_curves(self, tracked: TrackedRun, told: Told, points: Sequence[Point]) -> None:
        new = {point.epoch: curve_values(point) for point in points if point.epoch > told.epoch}
        if new:
            tracked.log_epochs(new)
            told.epoch = max(new)
            self._memory.save()

    def _tell_records(self, tracked: TrackedRun, told: Told, records: Sequence[Record]) -> None:
        new = [record for record in records if told.digests.get(_key(record)) != record.digest]
        if not new:
            return
        values = {name: value for record in new for name, value in figures_of(record).items()}
        tags = {name: text for record in new for name, text in tags_of(record).items()}
        tracked.log_figures(values, {**tags, **overall_tags(records)})
        told.digests |= {_key(record): record.digest for record in new}
        self._memory.save()

    def _attach(self, files: Sequence[Path], told: Told) -> None:
        digests = {file.name: file_digest(file) for file in files if file.exists()}
        new = [file for file in files if digests.get(file.name) != told.digests.get(file.name)]
        if new:
            self._whole().attach(new)
            told.digests |= {file.name: digests[file.name] for file in new}
            self._memory.save()

    def _close(self, told: Told, how: End, opened: Callable[[], TrackedRun]) -> None:
        if told.ended is not how:
            opened().end(how)
            self._open.pop(told.id)
            told.ended = how
            self._memory.save()

    def _whole(self) -> TrackedRun:
        """The tracked run of the run directory."""
        return self._opened(self._memory.of(), describe_run(self._run.plan, self._name), None)

    def _cell(self, cell: Cell) -> Callable[[], TrackedRun]:
        """A function that opens the tracked run of a cell, as a child of the run's."""
        told = self._memory.of(cell.slug)
        described = describe_cell(self._run.plan, self._name, cell)
        return lambda: self._opened(told, described, self._whole())

    def _opened(self, told: Told, described: Description, parent: TrackedRun | None) -> TrackedRun:
        if told.id in self._open:
            return self._open[told.id]
        tracked = self._tracker.open(described, told.id or None, parent)
        if tracked.id != told.id:  # a new run: it has no data yet
            told.epoch, told.digests, told.ended = 0, {}, None
        elif not self._tracker.keeps_all:
            told.digests = {}
        told.id = tracked.id
        self._open[told.id] = tracked
        self._memory.save()
        return tracked

    def _points(self, cell: Cell) -> list[Point]:
        file = self._run.curves_file(cell)
        return read_curves(file) if file.exists() else []

    def _records(self, cell: Cell) -> list[Record]:
        known = [self._run.record(cell, attack, eps) for attack, eps in self._run.measures(cell)]
        return [record for record in known if record is not None]


def _key(record: Record) -> str:
    return f"{record.attack}@{record.eps!r}"
