"""The files of a run, with an in-memory copy of files that only this process writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.runs.files import (
    forget,
    read_json,
    read_results,
    results_frame,
    write_results,
)

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.measurement.results import Measurement
    from robustbench_tin.benchmarks.runs.records import Record

T = TypeVar("T", bound=BaseModel)


class KeptFiles:
    """Reads and writes files; within :meth:`kept`, written files are served from memory.

    All other files are read from disk and checked at each call.
    """

    def __init__(self) -> None:
        self._keeps = False
        self._models: dict[Path, BaseModel] = {}
        self._results: dict[Path, pd.DataFrame] = {}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep written files in memory while the block runs; no other process may write them meanwhile."""
        self._keeps = True
        try:
            yield
        finally:
            self._keeps = False
            self._models.clear()
            self._results.clear()

    def read(self, file: Path, kind: type[T]) -> T:
        """The model in a JSON file.

        Raises:
            RunError: if it cannot be read or is damaged.
        """
        kept = self._models.get(file)
        return kept if isinstance(kept, kind) and file.exists() else read_json(file, kind)

    def write(self, file: Path, model: BaseModel) -> None:
        """Write a model as JSON."""
        write_text(file, model.model_dump_json(indent=2) + "\n")
        if self._keeps:
            self._models[file] = model

    def read_results(self, file: Path, record: Record) -> pd.DataFrame:
        """The results per image of a measurement.

        Raises:
            RunError: if the file is missing, cannot be read, or contradicts the record.
        """
        kept = self._results.get(file)
        return kept if kept is not None and file.exists() else read_results(file, record)

    def write_results(self, file: Path, found: Measurement) -> str:
        """Write the results per image of a measurement; return the file's digest."""
        digest = write_results(file, found)
        if self._keeps:
            self._results[file] = results_frame(found)
        return digest

    def forget(self, file: Path) -> None:
        """Remove a file if it exists.

        Raises:
            RunError: if it is a directory or cannot be removed.
        """
        self._models.pop(file, None)
        self._results.pop(file, None)
        forget(file)
