"""The messages that a worker process sends to its parent process, and their receiver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from robustbench_tin.progress import Advance, Preparation, Reporter

# Seconds between two progress messages of the same stage.
_PAUSE = 0.2


@dataclass(frozen=True)
class Ready:
    """The worker has loaded the run and waits for cells."""


@dataclass(frozen=True)
class Done:
    """A cell is complete."""


@dataclass(frozen=True)
class Stopped:
    """An error stops the worker, and with it the run.

    Attributes:
        text: one line for people.
        exit_code: exit code of the command.
        traceback: traceback of a defect in robust-tin; empty for a user's mistake.
    """

    text: str
    exit_code: int
    traceback: str = ""


@dataclass(frozen=True)
class Told:
    """A reporter's method was called.

    Attributes:
        method: ``say``, ``warn`` or ``finished``.
        line: its argument, for people.
    """

    method: str
    line: str


@dataclass(frozen=True)
class Began:
    """A stage began; the fields are its number and the arguments of :meth:`Reporter.stage`."""

    stage: int
    what: str
    total: int
    seconds: float


@dataclass(frozen=True)
class Advanced:
    """Steps of a stage are done."""

    stage: int
    steps: int


@dataclass(frozen=True)
class Ended:
    """A stage is over."""

    stage: int


class Sender(Protocol):
    """The way to another process, such as a connection."""

    def send(self, message: Any, /) -> None:
        """Send a message; messages arrive in order."""


class SendingReporter(Reporter):
    """Sends the progress of this process to another one.

    Args:
        connection: the connection to the other process.
    """

    def __init__(self, connection: Sender) -> None:
        self._connection = connection
        self._numbers = count()

    def say(self, line: str) -> None:
        self._connection.send(Told("say", line))

    def warn(self, line: str) -> None:
        self._connection.send(Told("warn", line))

    def finished(self, line: str) -> None:
        self._connection.send(Told("finished", line))

    @contextmanager
    def preparing(self) -> Iterator[Preparation]:
        yield lambda what, done, total: None

    @contextmanager
    def stage(self, what: str, total: int, seconds: float) -> Iterator[Advance]:
        number = next(self._numbers)
        self._connection.send(Began(number, what, total, seconds))
        waiting, sent = 0, time.monotonic()

        def advance(steps: int) -> None:
            nonlocal waiting, sent
            waiting += steps
            if time.monotonic() - sent >= _PAUSE:
                self._connection.send(Advanced(number, waiting))
                waiting, sent = 0, time.monotonic()

        try:
            yield advance
        finally:
            if waiting:
                self._connection.send(Advanced(number, waiting))
            self._connection.send(Ended(number))


class Hearing:
    """Passes a worker's messages on to a reporter.

    Args:
        reporter: the reporter of this process.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._stages: dict[int, tuple[ExitStack, Advance]] = {}

    def hear(self, message: Any) -> None:
        """Pass a progress message on; ignore any other message."""
        match message:
            case Told(method, line):
                getattr(self._reporter, method)(line)
            case Began(stage, what, total, seconds):
                stack = ExitStack()
                advance = stack.enter_context(self._reporter.stage(what, total, seconds))
                self._stages[stage] = stack, advance
            case Advanced(stage, steps):
                if stage in self._stages:
                    self._stages[stage][1](steps)
            case Ended(stage):
                if stage in self._stages:
                    self._stages.pop(stage)[0].close()

    def close(self) -> None:
        """End the stages that a worker left open when it died."""
        while self._stages:
            self._stages.popitem()[1][0].close()
