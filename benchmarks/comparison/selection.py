"""One side of a comparison: the cells that ``RUN`` or ``RUN:PATTERN`` selects, grouped over seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_tin.benchmarks.planning.cell_names import select_cells
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.run_directory import PLAN_FILE, RunDirectory
from robustbench_tin.specs import short_numbers

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from robustbench_tin.benchmarks.runs.records import Record


@dataclass(frozen=True)
class SeedGroup:
    """The cells of one backbone and defense in one run; they differ in their seeds only.

    Attributes:
        run: the run of the cells.
        cells: one cell for each seed, in the plan's order.
    """

    run: RunDirectory
    cells: tuple[Cell, ...]

    @property
    def model(self) -> str:
        """Name of the backbone."""
        return self.cells[0].model

    @property
    def defense(self) -> str:
        """Canonical spec of the defense, with short numbers."""
        return short_numbers(self.cells[0].defense)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the cells."""
        return tuple(cell.seed for cell in self.cells)

    @property
    def label(self) -> str:
        """Name for people, such as ``mobilenet + none, seeds 0, 1``."""
        word = "seed" if len(self.cells) == 1 else "seeds"
        return f"{self.model} + {self.defense}, {word} {', '.join(map(str, self.seeds))}"

    def is_same(self, other: SeedGroup) -> bool:
        """Whether both groups hold the same cells of the same run."""
        return self.run.path.resolve() == other.run.path.resolve() and self.cells == other.cells

    @cached_property
    def records(self) -> tuple[dict[tuple[str, float], Record], ...]:
        """For each cell, its records by attack and eps."""
        return tuple(dict(self._records(cell)) for cell in self.cells)

    def hits(self, attack: str, eps: float, rank: str) -> list[npt.NDArray[np.bool_]]:
        """The results per image of each cell, bool ``(N,)``.

        Args:
            attack: canonical spec of a measurement that every cell has.
            eps: its budget in units of the pixel range.
            rank: ``top1`` or ``top5``.
        """
        key = attack, eps
        if key not in self._outcomes:
            self._outcomes[key] = [self.run.outcomes(cell, attack, eps) for cell in self.cells]
        return [frame[rank].to_numpy(dtype=bool) for frame in self._outcomes[key]]

    @cached_property
    def _outcomes(self) -> dict[tuple[str, float], list[pd.DataFrame]]:
        """Cache of read files: a group is in several pairs, and a file holds both ranks."""
        return {}

    def of_seed(self, seed: int) -> SeedGroup:
        """The group with the cell of one seed only."""
        return SeedGroup(self.run, tuple(cell for cell in self.cells if cell.seed == seed))

    def _records(self, cell: Cell) -> Iterator[tuple[tuple[str, float], Record]]:
        for attack, eps in self.run.measures(cell):
            record = self.run.record(cell, attack, eps)
            if record is not None:
                yield (attack, eps), record


def select_groups(text: str | Path, cell: str = "*") -> list[SeedGroup]:
    """The groups that ``RUN`` or ``RUN:PATTERN`` selects, in the plan's order.

    Args:
        text: a run directory; after a colon, optionally, a name or a pattern of cells.
        cell: the pattern if the text has none.

    Raises:
        RunError: if the run does not exist or no cell matches.
    """
    path, pattern = _parted(str(text))
    run = RunDirectory.load(path)
    chosen = select_cells(run.plan.cells(), pattern or cell, str(run.path))
    groups: dict[tuple[str, str], list[Cell]] = {}
    for each in chosen:
        groups.setdefault((each.model, each.defense), []).append(each)
    return [SeedGroup(run, tuple(cells)) for cells in groups.values()]


def _parted(text: str) -> tuple[str, str]:
    """Split the text into run and pattern; both may contain colons."""
    places = [place for place, letter in enumerate(text) if letter == ":"]
    for place in (len(text), *places):
        if (Path(text[:place]) / PLAN_FILE).is_file():
            return text[:place], text[place + 1 :]
    return text.partition(":")[0] if not Path(text).exists() else text, ""
