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

    def log_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add a point to curves; epochs count from 1 and never go back."""

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
        repeats_figures: whether a run that is continued must be told the figures again.
        place: where it shows them, without a password.
    """

    name: ClassVar[str]
    repeats_figures: ClassVar[bool]

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
