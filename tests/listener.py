"""A reporter that keeps the messages of a run."""

from __future__ import annotations

from robustbench_tin.progress import Reporter


class Listener(Reporter):
    """Keeps the lines of messages and warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(line)
