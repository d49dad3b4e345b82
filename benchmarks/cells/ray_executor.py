"""Cells on a Ray cluster: a task for each, on whichever node has room, longest first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.executor import next_cell
from robustbench_tin.benchmarks.cells.failed_cell import save_dead
from robustbench_tin.benchmarks.cells.memory_needs import needed_memory
from robustbench_tin.benchmarks.cells.process_executor import WorkerError
from robustbench_tin.benchmarks.cells.ray_cluster import Mail, Needs, connected, nodes, open_mailbox, within
from robustbench_tin.benchmarks.cells.ray_task import Busy, ClusterAssignment, complete_in_worker
from robustbench_tin.benchmarks.cells.worker_messages import Done, Hearing, Stopped, Told
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.cell_claim import claimed
from robustbench_tin.benchmarks.runs.records import versions
from robustbench_tin.errors import one_line
from robustbench_tin.progress import duration
from robustbench_tin.text import counted

# Seconds between two looks at the mailbox.
_LOOK = 0.2
# A worker that dies may have been killed by its cell; a node that is lost was not.
_MOST_DEATHS, _MOST_LOST_NODES = 3, 20
# Seconds that the last process of a cell that failed gets to end.
_PATIENCE = 60.0


@dataclass(frozen=True)
class RayExecutor:
    """Several cells at a time on the nodes of a Ray cluster, which share the run directory.

    A task that is lost with its worker or its node is given out again, a bounded number of times; what it
    wrote stays. A cell that fails for its own reason is not tried again.

    Attributes:
        address: of the cluster; see :func:`~robustbench_tin.benchmarks.cells.ray_cluster.connected`.
        threads: CPUs of each cell, and threads that it computes with.
        gpus: of each cell; a part of 1 lets several share one.
        jobs: number of cells at a time at most; None: as many as the cluster holds.
    """

    address: str | None
    threads: int
    gpus: float
    jobs: int | None = None

    def complete(self, context: CellContext, cells: Sequence[Cell]) -> None:
        """See :class:`~robustbench_tin.benchmarks.cells.executor.Executor`."""
        assignment = ClusterAssignment(
            context.run.path.absolute(),
            context.request,
            context.costs,
            self.threads,
            context.limit,
            Path.cwd(),
            versions(),
        )
        with connected(self.address) as ray:
            tasks = _Tasks(ray, context, self, ray.put(assignment), open_mailbox(ray))
            tasks.announce(cells)
            try:
                tasks.work(cells)
            finally:
                tasks.end()


@dataclass
class _Attempt:
    """A task under way.

    Attributes:
        cell: which it completes.
        hearing: takes its messages on progress.
    """

    cell: Cell
    hearing: Hearing


@dataclass
class _Losses:
    """How often a cell's task was lost.

    Attributes:
        deaths: with its worker, or because another process had the cell.
        nodes: with its node.
    """

    deaths: int = 0
    nodes: int = 0

    def add(self, lost_node: bool) -> None:
        """Count one more."""
        if lost_node:
            self.nodes += 1
        else:
            self.deaths += 1

    @property
    def are_enough(self) -> bool:
        """Whether the cell is not tried again."""
        return self.deaths >= _MOST_DEATHS or self.nodes >= _MOST_LOST_NODES


@dataclass
class _Tasks:
    """The tasks of a run.

    Attributes:
        ray: the module.
        context: the run.
        executor: says what a cell gets.
        assignment: reference of what each worker gets.
        mailbox: of the tasks' messages.
        attempts: tasks under way, by the reference of their answer.
        losses: by cell.
    """

    ray: Any
    context: CellContext
    executor: RayExecutor
    assignment: Any
    mailbox: Any
    attempts: dict[Any, _Attempt] = field(default_factory=dict)
    losses: dict[Cell, _Losses] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = count()
        self._hearings: dict[int, Hearing] = {}
        self._task = self.ray.remote(_complete)

    def announce(self, cells: Sequence[Cell]) -> None:
        """Say what the cluster holds, or that it holds nothing yet."""
        of_nodes, slots = nodes(self.ray), self._slots(cells)
        if slots == 0:
            needs = self._needs(cells[0])
            self.context.reporter.warn(
                f"Ray: no node has room for a cell ({needs.cpus} CPUs, {needs.gpus:g} GPUs,"
                f" {needs.memory / 2**30:.1f} GiB); waiting for one"
            )
            return
        seconds = self.context.costs.side_by_side(slots, self._done(cells))
        self.context.reporter.say(
            f"Ray: {counted(len(of_nodes), 'node')}, {counted(slots, 'cell')} at a time;"
            f" about {duration(seconds)}"
        )

    def work(self, cells: Sequence[Cell]) -> None:
        """Give out cells until none is left.

        Raises:
            RobustTinError: for what stops the run.
        """
        waiting = sorted(cells, key=self.context.costs.cell, reverse=True)
        while waiting or self.attempts:
            self._give_out(waiting)
            ended, _ = self.ray.wait(list(self.attempts), timeout=_LOOK)
            self._hear()
            for answer in ended:
                lost = self._settle(answer)
                if lost is not None:
                    waiting.insert(0, lost)

    def end(self) -> None:
        """Stop what is under way."""
        for answer, attempt in self.attempts.items():
            self.ray.cancel(answer, force=True)
            attempt.hearing.close()
        self.ray.kill(self.mailbox)

    def _give_out(self, waiting: list[Cell]) -> None:
        """Submit the longest cells whose sources are done; a few wait in Ray, which sees what it lacks."""
        most = self.executor.jobs or 2 * max(1, self._slots(waiting))
        while len(self.attempts) < most:
            cell = next_cell(self.context.plan, waiting, {one.cell for one in self.attempts.values()})
            if cell is None:
                return
            waiting.remove(cell)
            self._submit(cell)

    def _submit(self, cell: Cell) -> None:
        number, hearing, needs = next(self._numbers), Hearing(self.context.reporter), self._needs(cell)
        # Ray's own attempts would neither be counted here nor close what the display shows of the last.
        task = self._task.options(
            num_cpus=needs.cpus, num_gpus=needs.gpus, memory=needs.memory, max_retries=0, name=cell.slug
        )
        answer = task.remote(self.assignment, cell, Mail(self.mailbox, number))
        self._hearings[number] = hearing
        self.attempts[answer] = _Attempt(cell, hearing)

    def _hear(self) -> None:
        """Pass on what tasks said; of a task that is over, its lines alone."""
        for number, message in self.ray.get(self.mailbox.take.remote()):
            hearing = self._hearings[number]
            if isinstance(message, Told) or any(hearing is one.hearing for one in self.attempts.values()):
                hearing.hear(message)

    def _settle(self, answer: Any) -> Cell | None:
        """Take an answer; returns the cell if it is to be given out again.

        Raises:
            RobustTinError: for what stops the run.
        """
        attempt = self.attempts.pop(answer)
        attempt.hearing.close()
        try:
            message = self.ray.get(answer)
        except self.ray.exceptions.RayTaskError as error:
            raise WorkerError(
                Stopped(f"a Ray worker cannot run robust-tin: {_last_line(error)}", 2)
            ) from None
        except self.ray.exceptions.RayError as error:
            return self._lost(attempt.cell, error)
        if isinstance(message, Stopped):
            if message.traceback:
                print(message.traceback, file=sys.stderr, end="")
            raise WorkerError(message)
        return self._lost(attempt.cell, message) if isinstance(message, Busy) else None

    def _lost(self, cell: Cell, why: Exception | Busy) -> Cell | None:
        """Count a task that was lost; returns the cell unless it was lost too often."""
        losses = self.losses.setdefault(cell, _Losses())
        losses.add(isinstance(why, self.ray.exceptions.NodeDiedError))
        cause = why.text if isinstance(why, Busy) else _first_line(why)
        if not losses.are_enough:
            self.context.reporter.warn(f"{cell.label}: given out again ({cause})")
            return cell
        tries = losses.deaths + losses.nodes
        with claimed(self.context.run.cell_directory(cell), _PATIENCE):
            save_dead(self.context, cell, f"its Ray task was lost {tries} times, at last: {cause}")
        return None

    def _needs(self, cell: Cell) -> Needs:
        plan = self.context.plan
        memory = needed_memory(plan.backbone(cell.model), plan.classes)
        return within(Needs(self.executor.threads, self.executor.gpus, memory), nodes(self.ray))

    def _slots(self, cells: Sequence[Cell]) -> int:
        """Number of cells that the nodes hold at a time, of those that need most."""
        of_nodes = nodes(self.ray)
        needs = max(map(self._needs, cells), key=lambda each: each.memory, default=None)
        return 0 if needs is None else sum(map(needs.fitting, of_nodes))

    def _done(self, cells: Sequence[Cell]) -> frozenset[str]:
        """The slugs of the plan's other cells."""
        return frozenset(cell.slug for cell in self.context.plan.cells()) - {cell.slug for cell in cells}


def _complete(assignment: ClusterAssignment, cell: Cell, mail: Mail) -> Done | Busy | Stopped:
    """The Ray task."""
    answer = complete_in_worker(assignment, cell, mail)
    mail.flush()
    return answer


def _first_line(error: Exception) -> str:
    return one_line(error).splitlines()[0][:200]


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:300]
