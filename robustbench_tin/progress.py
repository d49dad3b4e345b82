"""Progress of a run, for the user; a library call prints nothing unless asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from robustbench_tin.text import printable

Advance = Callable[[int], None]
Preparation = Callable[[str, int, int], None]


class Reporter:
    """Receives the progress of a run; this base class ignores it."""

    def say(self, line: str) -> None:
        """Receive a line for the user."""

    def warn(self, line: str) -> None:
        """Receive a line that the user must not miss."""

    def finished(self, line: str) -> None:
        """Receive a line about finished work."""

    @contextmanager
    def preparing(self) -> Iterator[Preparation]:
        """Wrap the opening of the data; yields ``report(what, done, total)``, with total 0 if unknown."""
        yield lambda what, done, total: None

    @contextmanager
    def overall(self, seconds: float) -> Iterator[None]:
        """Wrap all work, which is estimated to take this number of seconds."""
        yield

    @contextmanager
    def stage(self, what: str, total: int, seconds: float) -> Iterator[Advance]:
        """Wrap one piece of work of ``total`` steps, estimated to take this number of seconds."""
        yield lambda steps: None


class LinesReporter(Reporter):
    """Keeps the lines that a run shows.

    Attributes:
        lines: all lines so far, in their order.
        warnings: the warnings among them.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    finished = say

    def warn(self, line: str) -> None:
        self.say(line)
        self.warnings.append(line)


class ConsoleReporter(Reporter):
    """Bars with the time left on a terminal, plain lines elsewhere.

    The overall bar counts estimated seconds, so its time left corrects itself during the work.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._overall: TaskID | None = None

    def say(self, line: str) -> None:
        self._print(line, None)

    def warn(self, line: str) -> None:
        self._print(line, "bold yellow")

    def finished(self, line: str) -> None:
        self._print(line, "dim")

    def _print(self, line: str, style: str | None) -> None:
        text = Text(printable(line), style or "")
        self._console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def preparing(self) -> Iterator[Preparation]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        hidden = not self._console.is_terminal
        with Progress(*columns, console=self._console, transient=True, disable=hidden) as progress:
            tasks: dict[str, TaskID] = {}

            def report(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = progress.add_task(printable(what))
                progress.update(tasks[what], completed=done, total=total or None)

            yield report

    @contextmanager
    def overall(self, seconds: float) -> Iterator[None]:
        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            disable=not self._console.is_terminal,
            speed_estimate_period=600,
            transient=True,
        )
        with progress:
            self._progress = progress
            self._overall = progress.add_task("all", total=max(seconds, 1e-9))
            try:
                yield
            finally:
                self._progress = self._overall = None

    @contextmanager
    def stage(self, what: str, total: int, seconds: float) -> Iterator[Advance]:
        progress = self._progress
        if progress is None or self._overall is None:
            yield lambda steps: None
            return
        overall = self._overall
        task = progress.add_task(printable(what), total=total)

        def advance(steps: int) -> None:
            progress.advance(task, steps)
            progress.advance(overall, seconds * steps / max(total, 1))

        try:
            yield advance
        finally:
            progress.remove_task(task)


def duration(seconds: float) -> str:
    """A text for a number of seconds.

    >>> duration(42), duration(170), duration(9000)
    ('42 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
