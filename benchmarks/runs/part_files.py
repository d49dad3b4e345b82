"""The files of a measurement that several tasks share: each writes its part, and one joins them.

::

    RUN/cells/CELL/parts/clean.npz             logits of the clean images
    RUN/cells/CELL/parts/SHARD/part.npz        results of one task
    RUN/cells/CELL/parts/SHARD/.lock           held by the task that works on it

They are removed once the cell is measured. A part of another plan, of other weights or versions is no part.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_tin import files
from robustbench_tin.atomic import replacing
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.records import versions
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.errors import FOREIGN

Arrays = dict[str, npt.NDArray[Any]]

_PART, _CLEAN, _FACTS = "part.npz", "clean.npz", "facts"


class PartFiles:
    """The parts of one cell.

    Args:
        run: the run.
        cell: one of its cells, which is trained.
    """

    def __init__(self, run: RunDirectory, cell: Cell) -> None:
        trained = run.trained(cell)
        self._directory = run.cell_directory(cell) / "parts"
        self._common = {
            "plan_digest": run.plan.digest,
            "weights_digest": "" if trained is None else trained.weights_digest,
            "versions": versions(),
        }

    def directory(self, shard: str) -> Path:
        """Directory of a shard's files."""
        return self._directory / shard

    def save(self, shard: str, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """Write a part.

        Args:
            shard: its name.
            arrays: results per image.
            facts: other values, for JSON.
        """
        self._write(self.directory(shard) / _PART, arrays, facts)

    def save_clean_logits(self, logits: npt.NDArray[np.float32]) -> None:
        """Write the clean logits, which the attacks start from, float32 ``(N, C)``."""
        self._write(self._directory / _CLEAN, {"logits": logits}, {})

    def clean_logits(self) -> npt.NDArray[np.float32] | None:
        """The clean logits; None if they are missing."""
        known = self._read(self._directory / _CLEAN)
        return None if known is None else known[0]["logits"]

    def has(self, shard: str) -> bool:
        """Whether a part exists."""
        return self._read(self.directory(shard) / _PART) is not None

    def __iter__(self) -> Iterator[tuple[Arrays, dict[str, Any]]]:
        """Arrays and facts of each part; one that is damaged is left out."""
        for file in sorted(self._directory.glob(f"*/{_PART}")):
            known = self._read(file)
            if known is not None:
                yield known

    def remove(self) -> None:
        """Remove all parts."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _write(self, file: Path, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        text = json.dumps({**facts, **self._common}).encode()
        stored: Any = {**arrays, _FACTS: np.frombuffer(text, np.uint8)}
        with replacing(file) as temporary, temporary.open("wb") as content:
            np.savez(content, **stored)

    def _read(self, file: Path) -> tuple[Arrays, dict[str, Any]] | None:
        try:
            if not file.exists():
                return None
            with files.open_regular(file) as content, np.load(content, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            facts = json.loads(arrays.pop(_FACTS).tobytes())
        except FOREIGN:  # damaged: measured anew
            return None
        is_ours = isinstance(facts, dict) and facts.items() >= self._common.items()
        return (arrays, facts) if is_ours else None
