"""How far a run is, cell by cell, and when it will end."""

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
"""What the parts of a run were expected to take when it began or was continued."""


class CellCosts(BaseModel):
    """Seconds of one cell.

    Attributes:
        train: of its training.
        measure: by attack, at all budgets; of the clean measurement and of certificates.
        trust: of its trust checks.
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
    """Seconds of each cell, by its slug.

    Attributes:
        jobs: number of cells at a time.
        cells: their costs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    jobs: int
    cells: dict[str, CellCosts]


class Progress(StrEnum):
    """How far a cell is."""

    done = "done"
    failed = "failed"
    running = "running"
    waiting = "waiting"


@dataclass(frozen=True)
class CellState:
    """What a run has of a cell.

    Attributes:
        cell: which.
        trained: what is known of its training; None: not trained.
        records: of each measurement by attack and eps; None: not taken.
        settled: number of measurements that are taken, or can never be.
        lacks_verdict: the trust checks are left to do.
        current: the part that is under way; None: none.
    """

    cell: Cell
    trained: Trained | None
    records: Mapping[tuple[str, float], Record | None]
    settled: int
    lacks_verdict: bool
    current: CurrentPart | None

    @property
    def taken(self) -> list[Record]:
        """The records that there are."""
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
        """Estimated seconds of what the cell lacks; what failed is not tried again by itself."""
        if self.trained is not None and self.trained.status != OK:
            return 0.0
        lacking = {attack for (attack, _), record in self.records.items() if record is None}
        seconds = sum(costs.measure.get(attack, 0.0) for attack in lacking)
        training = costs.train if self.trained is None else 0.0
        return training + seconds + (costs.trust if lacking or self.lacks_verdict else 0.0)

    def measured(self, costs: CellCosts) -> tuple[float, float]:
        """Seconds that the parts which are done were expected to take, and seconds that they took."""
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
    """How far a run is.

    Attributes:
        running: a process works on it.
        cells: in the plan's order.
        costs: what their parts were expected to take; None: not known.
    """

    running: bool
    cells: tuple[CellState, ...]
    costs: ExpectedCosts | None

    def count(self, progress: Progress) -> int:
        """Number of cells in a state."""
        return sum(each.progress is progress for each in self.cells)

    @property
    def pace(self) -> float:
        """Seconds that the work took for each second that it was expected to take; 1 before any is done."""
        if self.costs is None:
            return 1.0
        pairs = [each.measured(self.costs.cells[each.cell.slug]) for each in self.cells]
        expected, taken = (sum(column) for column in zip(*pairs, strict=True))
        return taken / expected if expected and taken else 1.0

    def seconds_left_of(self, cell: CellState) -> float | None:
        """Seconds of work that a cell lacks, at the pace of what is done; None: not known."""
        if self.costs is None:
            return None
        left = self.pace * cell.seconds_left(self.costs.cells[cell.cell.slug])
        if cell.current is None:
            return left
        # The part under way is in there as a whole.
        return max(0.0, left - cell.current.seconds_passed)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last cell is done, the longest first; None: not known."""
        if self.costs is None:
            return None
        left = [self.seconds_left_of(each) or 0.0 for each in self.cells]
        return last_end(left, self.costs.jobs)


def run_state(run: RunDirectory) -> RunState:
    """Read how far a run is; each file is read once.

    Raises:
        RunError: if a file of it is damaged.
    """
    running = is_locked(run.path)
    cells = tuple(_cell_state(run, cell, running) for cell in run.plan.cells())
    return RunState(running, cells, _costs(run))


def last_end(seconds: Iterable[float], jobs: int) -> float:
    """Seconds until the last of these works ends, if ``jobs`` of them run at a time, the longest first."""
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
    """None of a run of an earlier version, and of a damaged file."""
    try:
        found = read_json(run.path / COSTS_FILE, ExpectedCosts)
    except RunError:
        return None
    return found if all(cell.slug in found.cells for cell in run.plan.cells()) else None
