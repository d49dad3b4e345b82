"""The context that the training and the measurement of a run's cells share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from robustbench_tin.benchmarks.cells.time_estimate import Estimate, estimate
from robustbench_tin.benchmarks.cells.time_limit import TimeLimit
from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.planning.resolve import resolve
from robustbench_tin.benchmarks.runs.current_part import note_current
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.data import Dataset
from robustbench_tin.models import Classifier, build_classifier
from robustbench_tin.models.published_head import head_rows
from robustbench_tin.progress import Advance, Reporter
from robustbench_tin.training.checkpoint import Checkpoint
from robustbench_tin.training.distributed import SINGLE_PROCESS, ProcessGroup


@dataclass(frozen=True)
class CellContext:
    """A run, its data, and its progress reporter.

    Attributes:
        run: the run directory: holds the plan; weights, records and results are written to it.
        dataset: the data set that the plan names.
        request: the user's options; some, such as the checkpoint interval, are not in the plan.
        costs: estimated seconds of each part of the work.
        reporter: shows progress.
        group: processes that train together.
        limit: the time at which to stop.
    """

    run: RunDirectory
    dataset: Dataset
    request: BenchConfig
    costs: Estimate
    reporter: Reporter
    group: ProcessGroup = SINGLE_PROCESS
    limit: TimeLimit = field(default_factory=TimeLimit)

    @classmethod
    def opened(
        cls,
        path: Path,
        request: BenchConfig,
        reporter: Reporter | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> Self:
        """The context in a process other than the one that began the run.

        Args:
            path: the run directory.
            request: the options that the first process was given.
            reporter: shows the progress of each cell; None: silent.
            group: processes that train together.

        Raises:
            RobustTinError: if the run cannot be read, or the request can no longer be carried out.
        """
        plan, dataset = resolve(request, Reporter(), find_trained)
        costs = estimate(plan, dataset.image_size)
        return cls(RunDirectory.load(path), dataset, request, costs, reporter or Reporter(), group)

    @property
    def plan(self) -> Plan:
        """The run's plan."""
        return self.run.plan

    def build(self, cell: Cell, *, fresh: bool = False) -> Classifier:
        """A cell's classifier; only a fresh one is loaded with the initial weights of training.

        Raises:
            WeightsError: if the weights cannot be loaded or do not fit.
        """
        plan, weights = self.plan, self.request.weights
        # A weights file fits one architecture: a backbone that only defenses need starts without it.
        asked = cell.model in plan.models
        starts = fresh and (plan.pretrained or (weights is not None and asked))
        rows = head_rows(plan.head, self.dataset.classes) if starts else ()
        return build_classifier(
            plan.backbone(cell.model),
            plan.classes,
            image_size=self.dataset.image_size,
            resize_to=plan.size_of(cell.model),
            pretrained=plan.pretrained and fresh,
            weights=Path(weights) if weights is not None and fresh and asked else None,
            head_rows=rows,
            seed=cell.seed,
        )

    def checkpoint(self, cell: Cell) -> Checkpoint:
        """The checkpoint of a cell's training."""
        file = self.run.checkpoint_file(cell)
        return Checkpoint(file, self.request.checkpoint_minutes, stop_at=self.limit.ends)

    @contextmanager
    def stage(
        self, cell: Cell, part: str, total: int, seconds: float, *, stops: bool = False
    ) -> Iterator[Advance]:
        """Run one part of a cell's work within this block; the run directory shows it as the current part.

        Args:
            cell: the cell.
            part: ``train``, ``clean`` or an attack, for people.
            total: number of its steps.
            seconds: its estimate.
            stops: whether it can stop in the middle and continue later; then it begins if any time is left.

        Raises:
            OutOfTimeError: if it cannot end in time.
        """
        self.limit.require(0.0 if stops else seconds)
        note_current(self.run, cell, part, seconds * self.limit.pace)
        started = time.monotonic()
        with self.reporter.stage(f"{part} {cell.label}", total, seconds) as advance:
            yield advance
        self.limit.measured(seconds, time.monotonic() - started)
