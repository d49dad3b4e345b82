"""Run cells in parallel, in a few worker processes, each with threads or a GPU of its own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Listener, wait
from queue import Empty, Queue
from threading import Thread
from typing import Any

from robustbench_tin.benchmarks.cells.assignment import Assignment
from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.executor import SerialExecutor, next_cell
from robustbench_tin.benchmarks.cells.failed_cell import save_dead
from robustbench_tin.benchmarks.cells.worker_messages import Done, Hearing, Ready, Stopped
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.current_part import forget_current
from robustbench_tin.errors import RobustTinError

_PROGRAM = "robustbench_tin.benchmarks.cells.worker_process"
# Seconds between two looks at a starting process, and seconds that a process gets to end.
_LOOK, _END = 0.1, 5.0
_KILLED = 9
# Number of times that a cell is tried again after its worker died.
_RETRIES = 2


class WorkerError(RobustTinError):
    """An error that stopped a worker, and with it the run."""

    def __init__(self, stopped: Stopped) -> None:
        super().__init__(stopped.text)
        self.exit_code = stopped.exit_code


@dataclass(frozen=True)
class ProcessExecutor:
    """Completes several cells at a time, each in a worker process.

    If a worker dies, a new one takes its place; its cell is tried again twice, then it fails. If workers
    cannot load something that this process has (a hand-registered attack, say), the cells run one after the
    other in this process.

    Attributes:
        jobs: number of workers, at least 1.
        threads: number of CPU threads per worker.
        gpus: indices of the GPUs; each worker gets one; empty: none.
    """

    jobs: int
    threads: int
    gpus: tuple[int, ...] = ()

    def complete(self, context: CellContext, cells: Sequence[Cell]) -> None:
        """See :class:`~robustbench_tin.benchmarks.cells.executor.Executor`."""
        assignment = Assignment(
            context.run.path.absolute(), context.request, context.costs, self.threads, context.limit
        )
        with _Pool(context, assignment, self.gpus).open() as pool:
            unfit = pool.start(min(self.jobs, len(cells)))
            if unfit is None:
                pool.work(cells)
                return
        context.reporter.say(f"Workers cannot load this run ({unfit}); its cells run one after the other")
        SerialExecutor(self.threads).complete(context, cells)


@dataclass
class _Worker:
    """A process that completes cells.

    Attributes:
        process: the worker process.
        connection: the connection to it.
        hearing: shows its progress messages.
        gpu: index of its GPU; None: no GPU.
        cell: the cell that it works on; None: it is idle.
    """

    process: subprocess.Popen[bytes]
    connection: Connection
    hearing: Hearing
    gpu: int | None
    cell: Cell | None = None

    def end(self) -> None:
        """Stop the process, even in the middle of a cell."""
        self.hearing.close()
        self.connection.close()
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class _Pool:
    """The workers of a run.

    Attributes:
        context: the run.
        assignment: sent to each worker.
        gpus: indices of the GPUs to hand out.
        workers: the live workers.
    """

    context: CellContext
    assignment: Assignment
    gpus: tuple[int, ...]
    workers: list[_Worker] = field(default_factory=list)
    _waiting: list[Cell] = field(default_factory=list)
    _deaths: Counter[Cell] = field(default_factory=Counter)

    @contextmanager
    def open(self) -> Iterator[_Pool]:
        """Listen for workers while the block runs; at its end all workers are stopped."""
        self._key = secrets.token_bytes(16)
        with Listener(authkey=self._key) as self._listener:
            try:
                yield self
            finally:
                for worker in self.workers:
                    worker.end()

    def start(self, count: int) -> str | None:
        """Start workers and wait until they have loaded the run; if one cannot load it, return the reason."""
        gpus = [self.gpus[number % len(self.gpus)] if self.gpus else None for number in range(count)]
        try:
            started = self._start(gpus)
        except WorkerError as error:
            return str(error)
        for worker in started:
            message = self._next_of(worker)
            if not isinstance(message, Ready):
                return message.text if isinstance(message, Stopped) else _cause(worker.process)
        return None

    def work(self, cells: Sequence[Cell]) -> None:
        """Hand out cells until none is left.

        Raises:
            WorkerError: if an error stops the run.
        """
        # The longest first: a long cell that begins last delays the end.
        waiting = self._waiting = sorted(cells, key=self.context.costs.cell, reverse=True)
        while waiting or any(worker.cell for worker in self.workers):
            for worker in [worker for worker in self.workers if worker.cell is None]:
                cell = next_cell(self.context.plan, waiting, {worker.cell for worker in self.workers})
                if cell is not None and self._give(worker, cell):
                    waiting.remove(cell)
            busy = {worker.connection: worker for worker in self.workers if worker.cell is not None}
            for connection in wait(list(busy)):
                self._hear(busy[connection])  # type: ignore[index]

    def _give(self, worker: _Worker, cell: Cell) -> bool:
        """Send a cell to an idle worker; if the worker has died, replace it and return False."""
        try:
            worker.connection.send(cell)
        except OSError:
            self._replace(worker)
            return False
        worker.cell = cell
        return True

    def _hear(self, worker: _Worker) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        if isinstance(message, Done):
            worker.cell = None
        elif isinstance(message, Stopped):
            if message.traceback:
                print(message.traceback, file=sys.stderr, end="")
            raise WorkerError(message)
        else:
            worker.hearing.hear(message)

    def _replace(self, worker: _Worker) -> None:
        """Start another worker in the place of a dead one, whose cell is tried again a few times."""
        self.workers.remove(worker)
        cause = _cause(worker.process)
        worker.end()
        if worker.cell is not None:
            self._after_death(worker.cell, cause)
        (fresh,) = self._start([worker.gpu])
        message = self._next_of(fresh)
        if not isinstance(message, Ready):
            text = message.text if isinstance(message, Stopped) else _cause(fresh.process)
            raise WorkerError(Stopped(f"a worker process died and cannot be restarted: {text}", 2))

    def _after_death(self, cell: Cell, cause: str) -> None:
        """Try a dead worker's cell again; record it as failed once its workers died too often."""
        forget_current(self.context.run, cell)
        self._deaths[cell] += 1
        if self._deaths[cell] > _RETRIES:
            save_dead(self.context, cell, cause)
            return
        self.context.reporter.warn(f"{cell.label}: {cause}; retry {self._deaths[cell]} of {_RETRIES}")
        self._waiting.insert(0, cell)

    def _start(self, gpus: Sequence[int | None]) -> list[_Worker]:
        """Start a worker per entry, all at the same time; an entry is the index of the worker's GPU.

        Raises:
            WorkerError: if a worker ends before it connects.
        """
        starting = {process.pid: (process, gpu) for gpu in gpus for process in [self._launched(gpu)]}
        started = []
        try:
            while starting:
                connection = self._accepted([process for process, _ in starting.values()])
                process, gpu = starting.pop(connection.recv())
                connection.send(self.assignment)
                started.append(_Worker(process, connection, Hearing(self.context.reporter), gpu))
                self.workers.append(started[-1])
        finally:
            for process, _ in starting.values():
                process.kill()
                process.wait()
        return started

    def _launched(self, gpu: int | None) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.assignment.threads)}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = _visible(gpu)
        words = [sys.executable, "-m", _PROGRAM]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, env=environment)  # noqa: S603 - none is given
        assert process.stdin is not None
        known = {"address": self._listener.address, "key": self._key.hex()}
        with suppress(BrokenPipeError):  # it has ended; the code that waits for it notices
            process.stdin.write(json.dumps(known).encode() + b"\n")
            process.stdin.flush()
        return process

    def _accepted(self, processes: Sequence[subprocess.Popen[bytes]]) -> Connection:
        """The connection that one of these processes opens.

        Raises:
            WorkerError: if a process ends without connecting.
        """
        made: Queue[Connection] = Queue()
        # A listener waits for ever and does not notice that a process ended.
        Thread(target=lambda: made.put(self._listener.accept()), daemon=True).start()
        while True:
            ended = [process for process in processes if process.poll() is not None]
            with suppress(Empty):
                return made.get(timeout=_LOOK)
            if ended:
                raise WorkerError(Stopped(_cause(ended[0]), RobustTinError.exit_code))

    @staticmethod
    def _next_of(worker: _Worker) -> Any:
        """The next message that is not about progress; None if the worker died."""
        while True:
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                return None
            if isinstance(message, Ready | Done | Stopped):
                return message
            worker.hearing.hear(message)


def _cause(process: subprocess.Popen[bytes]) -> str:
    """A sentence fragment that says how a process ended."""
    code = process.wait()
    if code >= 0:
        return f"its process ended with code {code}"
    told = ", which the system does if memory runs out" if code == -_KILLED else ""
    return f"its process was killed by signal {-code}{told}"


def _visible(gpu: int) -> str:
    """The value of ``CUDA_VISIBLE_DEVICES`` for a process that uses only this GPU."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return seen.split(",")[gpu] if seen else str(gpu)
