"""Cells on a Ray cluster: a task for each, on whichever node has room, longest first."""

from __future__ import annotations

import math
import secrets
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.executor import next_cell
from robustbench_tin.benchmarks.cells.failed_cell import save_dead
from robustbench_tin.benchmarks.cells.memory_needs import needed_memory
from robustbench_tin.benchmarks.cells.process_executor import WorkerError
from robustbench_tin.benchmarks.cells.ray_cluster import (
    Mail,
    Needs,
    RayError,
    connected,
    nodes,
    open_mailbox,
    within,
)
from robustbench_tin.benchmarks.cells.ray_task import (
    Answer,
    Busy,
    ClusterAssignment,
    Divided,
    Work,
    work_in_worker,
)
from robustbench_tin.benchmarks.cells.time_limit import TimeLimit
from robustbench_tin.benchmarks.cells.worker_messages import Hearing, Stopped, Told
from robustbench_tin.benchmarks.measurement.shards import Shard
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.cell_claim import claimed
from robustbench_tin.benchmarks.runs.current_part import forget_current
from robustbench_tin.benchmarks.runs.records import versions
from robustbench_tin.benchmarks.runs.run_state import COSTS_FILE
from robustbench_tin.errors import one_line
from robustbench_tin.progress import duration
from robustbench_tin.text import counted

# Seconds between two looks at the mailbox.
_LOOK = 0.2
# Seconds that the mailbox gets to answer.
_ANSWER = 10.0
# Seconds for which the list of nodes is taken as it is.
_NODES_AGE = 5.0
# A worker that dies may have been killed by its cell; a node that is lost was not.
_MOST_DEATHS, _MOST_LOST_NODES = 3, 20
# Seconds that the last process of a cell that failed gets to end.
_PATIENCE = 60.0


@dataclass(frozen=True)
class RayExecutor:
    """Several cells at a time on the nodes of a Ray cluster, which share the run directory.

    A task that is lost with its worker or its node is given out again, a bounded number of times; its files
    stay. A cell that fails for its own reason is not tried again.

    Attributes:
        address: of the cluster; see :func:`~robustbench_tin.benchmarks.cells.ray_cluster.connected`.
        threads: CPUs of each cell, and threads that it computes with.
        gpus: GPUs of each cell; a fraction lets several cells share one.
        jobs: largest number of tasks at a time; None: as many as the cluster holds.
        shortest_shard: least number of seconds of a shard.
    """

    address: str | None
    threads: int
    gpus: float
    jobs: int | None = None
    shortest_shard: float = 120.0

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
            secrets.token_hex(8),
        )
        with connected(self.address) as ray:
            tasks = _Tasks(ray, context, self, assignment, open_mailbox(ray))
            tasks.announce(cells)
            try:
                tasks.work(cells)
            except ray.exceptions.RayError as error:
                raise RayError(
                    f"lost the Ray cluster: {_first_line(error)}; the same command continues"
                ) from error
            finally:
                tasks.end()


@dataclass
class _Attempt:
    """A task under way.

    Attributes:
        work: the work of the task.
        hearing: receives its progress messages.
    """

    work: Work
    hearing: Hearing


@dataclass
class _Losses:
    """How often a task was lost.

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
        """Whether it is not given out again."""
        return self.deaths >= _MOST_DEATHS or self.nodes >= _MOST_LOST_NODES


@dataclass
class _Tasks:
    """The tasks of a run.

    Attributes:
        ray: the module.
        context: the run.
        executor: the resources of a task.
        assignment: of each worker; it travels with the tasks, so that it is lost with no node.
        mailbox: of the tasks' messages.
        attempts: tasks under way, by the reference of their answer.
        losses: by work.
        shards: of each divided cell, those that are not measured yet.
    """

    ray: Any
    context: CellContext
    executor: RayExecutor
    assignment: ClusterAssignment
    mailbox: Any
    attempts: dict[Any, _Attempt] = field(default_factory=dict)
    losses: dict[Work, _Losses] = field(default_factory=dict)
    shards: dict[Cell, set[Shard]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = count()
        self._hearings: dict[int, Hearing] = {}
        self._task = self.ray.remote(_work)
        # The work on begun cells; it goes before other cells.
        self._begun: list[Work] = []
        plan = self.context.plan
        self._memory = {name: needed_memory(plan.backbone(name), plan.classes) for name in plan.backbones}
        self._seen: list[dict[str, float]] = []
        self._looked = -math.inf

    def announce(self, cells: Sequence[Cell]) -> None:
        """Print the size of the cluster, or that no cell fits yet."""
        of_nodes, slots = self._nodes(), self._slots(cells)
        if slots == 0:
            needs = self._needs(cells[0])
            self.context.reporter.warn(
                f"Ray: no node has room for a cell ({needs.cpus} CPUs, {needs.gpus:g} GPUs,"
                f" {needs.memory / 2**30:.1f} GiB); waiting for one"
            )
            return
        costs, run = self.context.costs, self.context.run
        run.files.write(run.path / COSTS_FILE, costs.expected(slots))
        seconds = costs.side_by_side(slots, self._done(cells))
        self.context.reporter.say(
            f"Ray: {counted(len(of_nodes), 'node')}, {counted(slots, 'cell')} at a time;"
            f" about {duration(seconds)}"
        )

    def work(self, cells: Sequence[Cell]) -> None:
        """Give out cells until none is left.

        Raises:
            RobustTinError: for an error that stops the whole run.
        """
        waiting = sorted(cells, key=self.context.costs.cell, reverse=True)
        while waiting or self._begun or self.attempts:
            self._give_out(waiting)
            if not self.attempts:
                return
            ended, _ = self.ray.wait(list(self.attempts), timeout=_LOOK)
            self._hear()
            for answer in ended:
                self._settle(answer)

    def end(self) -> None:
        """Stop the tasks under way."""
        for answer, attempt in self.attempts.items():
            self.ray.cancel(answer, force=True)
            attempt.hearing.close()
        self.ray.kill(self.mailbox)

    def _give_out(self, waiting: list[Cell]) -> None:
        """Submit the work on begun cells, then the longest cells whose sources are done."""
        if self.context.limit.left <= 0:
            waiting.clear()
            self._begun.clear()
        most = self.executor.jobs or self._most([*waiting, *(work.cell for work in self._begun)])
        while len(self.attempts) < most:
            work = self._begun.pop(0) if self._begun else self._next(waiting)
            if work is None:
                return
            self._submit(work)

    def _most(self, cells: Sequence[Cell]) -> int:
        """Number of tasks for Ray: if time is not limited, more than fit, so that it sees the demand."""
        slots = max(1, self._slots(cells))
        return slots if math.isfinite(self.context.limit.ends) else 2 * slots

    def _next(self, waiting: list[Cell]) -> Work | None:
        """Take the next cell out of those that wait; None if all wait for others."""
        under_way = {attempt.work.cell for attempt in self.attempts.values()} | set(self.shards)
        cell = next_cell(self.context.plan, waiting, under_way)
        if cell is None:
            return None
        waiting.remove(cell)
        return Work(cell, shortest_shard=self.executor.shortest_shard)

    def _submit(self, work: Work) -> None:
        number, hearing, needs = next(self._numbers), Hearing(self.context.reporter), self._needs(work.cell)
        # Ray's own retries would not be counted here, and would leave stages of the lost task on the display.
        task = self._task.options(
            num_cpus=needs.cpus, num_gpus=needs.gpus, memory=needs.memory, max_retries=0, name=work.cell.slug
        )
        answer = task.remote(self.assignment, work, self.context.limit, Mail(self.mailbox, number))
        self._hearings[number] = hearing
        self.attempts[answer] = _Attempt(work, hearing)

    def _hear(self) -> None:
        """Pass on the messages of tasks; of a task that has ended, its lines alone."""
        letters: list[tuple[int, Any]] = []
        with suppress(self.ray.exceptions.RayError):  # the mailbox died, and starts again
            letters = self.ray.get(self.mailbox.take.remote(), timeout=_ANSWER)
        for number, message in letters:
            hearing = self._hearings[number]
            if isinstance(message, Told) or any(hearing is one.hearing for one in self.attempts.values()):
                hearing.hear(message)

    def _settle(self, answer: Any) -> None:
        """Take an answer, and queue the work that follows from it.

        Raises:
            RobustTinError: for an error that stops the whole run.
        """
        attempt = self.attempts.pop(answer)
        attempt.hearing.close()
        try:
            message: Answer = self.ray.get(answer)
        except self.ray.exceptions.RayError as error:
            # A task that could not fetch what it needs from a lost node has an error of Ray as its cause.
            known, cause = self.ray.exceptions, getattr(error, "cause", None)
            if isinstance(error, known.RayTaskError) and not isinstance(cause, known.RayError):
                raise RayError(f"a Ray worker cannot run robust-tin: {_last_line(error)}") from None
            lost_node = isinstance(error, known.NodeDiedError | known.RayTaskError)
            self._lost(attempt.work, _first_line(error), lost_node)
            return
        if isinstance(message, Stopped):
            if message.traceback:
                print(message.traceback, file=sys.stderr, end="")
            raise WorkerError(message)
        if isinstance(message, Busy):
            self._lost(attempt.work, message.text, lost_node=False)
        elif isinstance(message, Divided):
            self.shards[attempt.work.cell] = set(message.shards)
            self._begun += [Work(attempt.work.cell, shard) for shard in message.shards]
        elif attempt.work.shard is not None:
            self._measured(attempt.work)

    def _measured(self, work: Work) -> None:
        """Let the cell be completed once none of its shards is left."""
        left = self.shards[work.cell]
        left.discard(work.shard)
        if not left:
            del self.shards[work.cell]
            self._begun.insert(0, Work(work.cell))

    def _lost(self, work: Work, cause: str, lost_node: bool) -> None:
        """Give out a task again that was lost; if it was lost too often, do without it."""
        forget_current(self.context.run, work.cell)
        losses = self.losses.setdefault(work, _Losses())
        losses.add(lost_node)
        what = work.cell.label if work.shard is None else f"{work.cell.label}, {work.shard.name}"
        if not losses.are_enough:
            self.context.reporter.warn(f"{what}: given out again ({cause})")
            self._begun.insert(0, work)
        elif work.shard is not None:
            # The task that completes the cell measures it then, or is lost itself.
            self._measured(work)
        else:
            tries = losses.deaths + losses.nodes
            with claimed(self.context.run.cell_directory(work.cell), _PATIENCE):
                why = f"its Ray task was lost {tries} times, at last: {cause}"
                save_dead(self.context, work.cell, why)

    def _needs(self, cell: Cell) -> Needs:
        needs = Needs(self.executor.threads, self.executor.gpus, self._memory[cell.model])
        return within(needs, self._nodes())

    def _slots(self, cells: Sequence[Cell]) -> int:
        """Number of cells that the nodes hold at a time, of those that need most."""
        largest = max(cells, key=lambda cell: self._memory[cell.model], default=None)
        return 0 if largest is None else sum(map(self._needs(largest).fitting, self._nodes()))

    def _nodes(self) -> list[dict[str, float]]:
        """The resources of the nodes, as they were a few seconds ago at most."""
        if time.monotonic() - self._looked > _NODES_AGE:
            self._seen, self._looked = nodes(self.ray), time.monotonic()
        return self._seen

    def _done(self, cells: Sequence[Cell]) -> frozenset[str]:
        """The slugs of the plan's other cells."""
        return frozenset(cell.slug for cell in self.context.plan.cells()) - {cell.slug for cell in cells}


def _work(assignment: ClusterAssignment, work: Work, limit: TimeLimit, mail: Mail) -> Answer:
    """The Ray task."""
    answer = work_in_worker(assignment, work, limit, mail)
    mail.flush()
    return answer


def _first_line(error: Exception) -> str:
    return one_line(error).splitlines()[0][:200]


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:300]
