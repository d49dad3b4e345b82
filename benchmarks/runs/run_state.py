"""The progress of a run, cell by cell, and the time until it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.current_part import CurrentPart, current_part
from robustbench_tin.benchmarks.runs.files import read_json
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN, Record
from robustbench_tin.benchmarks.runs.resumable_output import is_locked
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.benchmarks.runs.training_files import Trained
from robustbench_tin.errors import RunError

COSTS_FILE = "costs.json"
"""File with the expected seconds of a run's parts, written when the run begins or continues."""


class CellCosts(BaseModel):
    """Expected seconds of one cell.

    Attributes:
        train: seconds of its training.
        measure: seconds by attack, at all budgets; also of the clean measurement and of certificates.
        trust: seconds of its trust checks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: float
    measure: dict[str, float]
    trust: float

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return self.train + sum(self.measure.values()) + self.trust


class ExpectedCosts(BaseModel):
    """Expected seconds of each cell.

    Attributes:
        jobs: number of cells that run at a time.
        cells: costs of the cells, by slug.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    jobs: int
    cells: dict[str, CellCosts]


class Progress(StrEnum):
    """The state of a cell as a whole."""

    done = "done"
    failed = "failed"
    running = "running"
    waiting = "waiting"


@dataclass(frozen=True)
class CellState:
    """The progress of one cell.

    Attributes:
        cell: the cell.
        trained: the facts of its training; None: not trained.
        records: record of each measurement, by attack and eps; None: not taken.
        settled: number of measurements that are taken or impossible.
        lacks_verdict: whether the trust checks are left to do.
        current: the current part; None: no part is running.
    """

    cell: Cell
    trained: Trained | None
    records: Mapping[tuple[str, float], Record | None]
    settled: int
    lacks_verdict: bool
    current: CurrentPart | None

    @property
    def taken(self) -> list[Record]:
        """The existing records."""
        return [record for record in self.records.values() if record is not None]

    @property
    def progress(self) -> Progress:
        """The state of the cell as a whole."""
        if self.current is not None:
            return Progress.running
        if self.settled == len(self.records) and not self.lacks_verdict:
            return Progress.done
        if all(self.records.values()):
            return Progress.failed
        return Progress.waiting

    def seconds_left(self, costs: CellCosts) -> float:
        """Estimated seconds of the missing parts; failed parts are not repeated automatically."""
        if self.trained is not None and self.trained.status != OK:
            return 0.0
        lacking = {attack for (attack, _), record in self.records.items() if record is None}
        seconds = sum(costs.measure.get(attack, 0.0) for attack in lacking)
        training = costs.train if self.trained is None else 0.0
        return training + seconds + (costs.trust if lacking or self.lacks_verdict else 0.0)

    def measured(self, costs: CellCosts) -> tuple[float, float]:
        """Expected and real seconds of the finished parts."""
        expected = taken = 0.0
        if self.trained is not None and self.trained.status == OK and costs.train:
            expected, taken = costs.train, self.trained.seconds or 0.0
        for attack, seconds in costs.measure.items():
            records = [record for (one, _), record in self.records.items() if one == attack]
            known = [record.seconds for record in records if record is not None and record.status == OK]
            if seconds and len(known) == len(records):
                expected, taken = expected + seconds, taken + sum(known)
        return expected, taken


@dataclass(frozen=True)
class RunState:
    """The progress of a run.

    Attributes:
        running: whether a process works on it.
        cells: the cells, in the plan's order.
        costs: expected seconds of their parts; None: unknown.
    """

    running: bool
    cells: tuple[CellState, ...]
    costs: ExpectedCosts | None

    def count(self, progress: Progress) -> int:
        """Number of cells in this state."""
        return sum(each.progress is progress for each in self.cells)

    @property
    def pace(self) -> float:
        """Real seconds of the work per expected second; 1 before any work is done."""
        if self.costs is None:
            return 1.0
        pairs = [each.measured(self.costs.cells[each.cell.slug]) for each in self.cells]
        expected, taken = (sum(column) for column in zip(*pairs, strict=True))
        return taken / expected if expected and taken else 1.0

    def seconds_left_of(self, cell: CellState) -> float | None:
        """Seconds of work that a cell lacks, at the pace of the finished work; None: unknown."""
        if self.costs is None:
            return None
        left = self.pace * cell.seconds_left(self.costs.cells[cell.cell.slug])
        if cell.current is None:
            return left
        # The seconds of the current part are included completely.
        return max(0.0, left - cell.current.seconds_passed)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last cell is done, with the longest cells first; None: unknown."""
        if self.costs is None:
            return None
        left = [self.seconds_left_of(each) or 0.0 for each in self.cells]
        return last_end(left, self.costs.jobs)


def run_state(run: RunDirectory) -> RunState:
    """Read the progress of a run; each file is read once.

    Raises:
        RunError: if one of its files is damaged.
    """
    running = is_locked(run.path)
    cells = tuple(_cell_state(run, cell, running) for cell in run.plan.cells())
    return RunState(running, cells, _costs(run))


def last_end(seconds: Iterable[float], jobs: int) -> float:
    """Seconds until the last of these cells ends, if ``jobs`` of them run at a time, longest first."""
    busy = [0.0] * max(1, jobs)
    for each in sorted(seconds, reverse=True):
        busy[busy.index(min(busy))] += each
    return max(busy)


def _cell_state(run: RunDirectory, cell: Cell, running: bool) -> CellState:
    records = {(attack, eps): run.record(cell, attack, eps) for attack, eps in run.measures(cell)}
    known = [record for record in records.values() if record is not None]
    return CellState(
        cell,
        run.trained(cell),
        records,
        sum(map(run.is_settled, known)),
        run.plan.trust and any(map(_lacks_verdict, known)),
        current_part(run, cell) if running else None,
    )


def _lacks_verdict(record: Record) -> bool:
    return record.trust is None and record.attack not in (CLEAN, CERTIFIED)


def _costs(run: RunDirectory) -> ExpectedCosts | None:
    """The expected costs; None if an earlier version wrote the run, or the file is damaged."""
    try:
        found = read_json(run.path / COSTS_FILE, ExpectedCosts)
    except RunError:
        return None
    return found if all(cell.slug in found.cells for cell in run.plan.cells()) else None
