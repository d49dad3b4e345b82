"""Weights & Biases: a run for the run directory and one for each cell, in one group."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from robustbench_tin.benchmarks.tracking.tracker import Description, End, TrackedRun

# Texts that become filter tags, such as ``trust: ok``; other texts are stored with the figures.
_FILTERS = ("status", "trust")
_LONGEST_TAG = 64
# Seconds that the service gets to answer when a run is opened; a later look tries again.
_PATIENCE = 30.0
_CODES = {End.finished: 0, End.failed: 1, End.stopped: 255}


@dataclass(frozen=True)
class WandbRun:
    """See :class:`~robustbench_tin.benchmarks.tracking.tracker.TrackedRun`."""

    id: str
    run: Any = field(repr=False)

    def log_epochs(self, points: Mapping[int, Mapping[str, float]]) -> None:
        # With explicit steps: offline, a continued run does not know its last step; online, wandb drops steps
        # that it already has.
        for epoch, values in points.items():
            self.run.log({**values, "epoch": epoch}, step=epoch, commit=True)

    def log_figures(self, values: Mapping[str, float], tags: Mapping[str, str]) -> None:
        self.run.summary.update({**values, **tags})
        new = {name: f"{name}: {tags[name]}"[:_LONGEST_TAG] for name in _FILTERS if name in tags}
        kept = [tag for tag in self.run.tags or () if tag.partition(":")[0] not in new]
        self.run.tags = (*kept, *new.values())

    def attach(self, files: Sequence[Path]) -> None:
        import wandb

        artifact = wandb.Artifact(f"results-{self.id}", type="results")
        for file in files:
            artifact.add_file(str(file))
        self.run.log_artifact(artifact)

    def end(self, how: End) -> None:
        self.run.finish(_CODES[how])


class WandbTracker:
    """See :class:`~robustbench_tin.benchmarks.tracking.tracker.Tracker`.

    Args:
        project: the project of the runs.
        directory: directory of wandb's own files.
    """

    name: ClassVar = "wandb"
    # A part written offline has its own figures, and wandb shows those of the last part. If the process is
    # killed, the last points are lost.
    keeps_all: ClassVar = False

    def __init__(self, project: str, directory: Path) -> None:
        self._project = project
        self._directory = directory

    @property
    def place(self) -> str:
        return self._project

    def open(self, described: Description, known: str | None, parent: TrackedRun | None) -> WandbRun:
        import wandb

        name = known or secrets.token_hex(4)
        settings = wandb.Settings(
            silent=True,  # wandb must not ask for a key in the middle of a run
            console="off",
            init_timeout=_PATIENCE,
            reinit="create_new",  # parallel cells are parallel runs
        )
        wandb.setup(settings)
        run = wandb.init(
            project=self._project,
            dir=str(self._directory),
            id=name,
            resume="allow",
            name=described.name,
            group=described.group,
            job_type=described.kind,
            config=dict(described.settings),
            allow_val_change=True,
            settings=settings,
        )
        return WandbRun(name, run)
