"""The interface of a tracker: a service that shows runs while they progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Protocol


class End(StrEnum):
    """How a tracked run ends."""

    finished = "finished"
    failed = "failed"
    stopped = "stopped"


@dataclass(frozen=True)
class Description:
    """The facts of a run that a tracker shows before there are results.

    Attributes:
        name: a name for people.
        group: name of the run directory, which all its tracked runs share.
        kind: ``run`` or ``cell``.
        settings: settings by name.
    """

    name: str
    group: str
    kind: str
    settings: Mapping[str, str]


class TrackedRun(Protocol):
    """A run in a tracker; any method may raise an error of the tracker's client."""

    @property
    def id(self) -> str:
        """The tracker's id of the run."""

    def log_epochs(self, points: Mapping[int, Mapping[str, float]]) -> None:
        """Add points to curves, by epoch, in order, from 1."""

    def log_figures(self, values: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Set figures that have no epoch, and texts; later ones replace earlier ones."""

    def attach(self, files: Sequence[Path]) -> None:
        """Store files."""

    def end(self, how: End) -> None:
        """Close the run; :meth:`Tracker.open` continues it."""


class Tracker(Protocol):
    """Opens tracked runs.

    Attributes:
        name: name of the option, and of the file that lists its runs.
        keeps_all: whether a run keeps all data it received, however the process ended; if not, a continued
            run gets the figures again, and the curves if it was not closed.
        place: address or project of the runs, without a password.
    """

    name: ClassVar[str]
    keeps_all: ClassVar[bool]

    @property
    def place(self) -> str:
        """Address or project of the runs, without a password."""

    def open(self, described: Description, known: str | None, parent: TrackedRun | None) -> TrackedRun:
        """Begin a tracked run, or continue one.

        Args:
            described: facts of the run.
            known: id of the run to continue; if the tracker no longer has it, a new run begins.
            parent: tracked run of the run directory; None for the run directory's own.
        """
