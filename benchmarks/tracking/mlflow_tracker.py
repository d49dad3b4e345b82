"""MLflow: one run for the run directory, with a child run for each cell."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from robustbench_tin.benchmarks.tracking.tracker import Description, End, TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

_EXPERIMENT = "robust-tin"
_STATUS = {End.finished: "FINISHED", End.failed: "FAILED", End.stopped: "KILLED"}
# By default MLflow retries a request for minutes, but a later look repeats it anyway. It would also print
# addresses between the tables.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Limits of the MLflow service.
_MOST_IN_BATCH, _LONGEST_PARAM, _LONGEST_TAG = 100, 500, 5000


@dataclass(frozen=True)
class MlflowRun:
    """See :class:`~robustbench_tin.benchmarks.tracking.tracker.TrackedRun`."""

    id: str
    client: MlflowClient = field(repr=False)

    def log_epochs(self, points: Mapping[int, Mapping[str, float]]) -> None:
        self._log(points)

    def log_figures(self, values: Mapping[str, float], tags: Mapping[str, str]) -> None:
        self._log({0: values})
        self.set_tags(tags)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, within the limits of the service."""
        from mlflow.entities import RunTag

        self._batches("tags", [RunTag(name, text[:_LONGEST_TAG]) for name, text in tags.items()])

    def set_params(self, settings: Mapping[str, str]) -> None:
        """Set parameters, within the limits of the service."""
        from mlflow.entities import Param

        self._batches("params", [Param(name, text[:_LONGEST_PARAM]) for name, text in settings.items()])

    def attach(self, files: Sequence[Path]) -> None:
        for file in files:
            self.client.log_artifact(self.id, str(file))

    def end(self, how: End) -> None:
        self.client.set_terminated(self.id, _STATUS[how])

    def _log(self, points: Mapping[int, Mapping[str, float]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, step)
            for step, values in points.items()
            for name, value in values.items()
        ]
        self._batches("metrics", metrics)

    def _batches(self, kind: str, entries: Sequence[Any]) -> None:
        for start in range(0, len(entries), _MOST_IN_BATCH):
            part: dict[str, Any] = {kind: entries[start : start + _MOST_IN_BATCH]}
            self.client.log_batch(self.id, **part)


class MlflowTracker:
    """See :class:`~robustbench_tin.benchmarks.tracking.tracker.Tracker`.

    Args:
        uri: URI of the tracking server or store.
    """

    name: ClassVar = "mlflow"
    keeps_all: ClassVar = True

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @property
    def place(self) -> str:
        user, at, _ = urlsplit(self._uri).netloc.rpartition("@")
        return self._uri.replace(user + at, "", 1)

    def open(self, described: Description, known: str | None, parent: TrackedRun | None) -> MlflowRun:
        if known is not None and self._has(known):
            self._client.update_run(known, status="RUNNING")
            return MlflowRun(known, self._client)
        tags = {"robust-tin.kind": described.kind, "robust-tin.run": described.group}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent.id
        made = self._client.create_run(self._experiment, run_name=described.name, tags=tags)
        run = MlflowRun(made.info.run_id, self._client)
        run.set_params(described.settings)
        return run

    @cached_property
    def _client(self) -> MlflowClient:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        return MlflowClient(self._uri)

    @cached_property
    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
        there = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if there is None else there.experiment_id)

    def _has(self, known: str) -> bool:
        """Whether a run exists and is not deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client.get_run(known).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
