"""The interface of a tracker: a service that shows runs while they go on."""

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
    """What a tracker shows of a run before it has any result.

    Attributes:
        name: for people.
        group: name of the run directory, which all its tracked runs share.
        kind: ``run`` or ``cell``.
        settings: by their names.
    """

    name: str
    group: str
    kind: str
    settings: Mapping[str, str]


class TrackedRun(Protocol):
    """A run as a tracker has it; any method may raise what the tracker's client raises."""

    @property
    def id(self) -> str:
        """The tracker's own name for it."""

    def log_epochs(self, points: Mapping[int, Mapping[str, float]]) -> None:
        """Add points to curves, by their epochs in order, from 1."""

    def log_figures(self, values: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Set figures that have no epoch, and texts beside them; later ones replace earlier ones."""

    def attach(self, files: Sequence[Path]) -> None:
        """Store files."""

    def end(self, how: End) -> None:
        """Close it; :meth:`Tracker.open` continues it."""


class Tracker(Protocol):
    """Opens tracked runs.

    Attributes:
        name: of the option, and of the file that remembers its runs.
        keeps_all: whether a run has all that it was told, however the process ended; if not, one that is
            continued is told the figures again, and the curves if it was not closed.
        place: where it shows them, without a password.
    """

    name: ClassVar[str]
    keeps_all: ClassVar[bool]

    @property
    def place(self) -> str:
        """Where runs are shown."""

    def open(self, described: Description, known: str | None, parent: TrackedRun | None) -> TrackedRun:
        """Begin a tracked run or continue one.

        Args:
            described: what is known of it.
            known: id of the run to continue; one that the tracker does not have any more is begun anew.
            parent: tracked run of the run directory; None for that itself.
        """
