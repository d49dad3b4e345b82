"""The rows of a results table: backbone and defense, with the measurements of each seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.specs import short_numbers

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.reporting.transfer_table import Worst

TRANSFER = "worst transfer"
"""Takes the place of an attack in the columns of images made on other cells."""

Measures = Mapping[tuple[str, float], Mapping[Any, Any]]


@dataclass(frozen=True)
class SeedMeasures:
    """One cell.

    Attributes:
        label: a name without the seed, for people: ``resnet50 + fgsm-at``.
        seed: the cell's seed.
        measures: its records by attack and eps.
        one_status: whether all its records have the same status, as if its training failed.
    """

    label: str
    seed: int
    measures: Measures
    one_status: bool

    @property
    def name(self) -> str:
        """A name for people: ``resnet50 + fgsm-at, seed 0``."""
        return f"{self.label}, seed {self.seed}"

    @property
    def clean(self) -> Mapping[Any, Any] | None:
        """The clean record."""
        return self.measures.get((CLEAN, 0.0))

    @property
    def not_learned(self) -> bool:
        """Whether its clean accuracy is known to be not above chance."""
        return self.clean is not None and self.clean["above_chance"] is False


@dataclass(frozen=True)
class TableRow:
    """One backbone and defense.

    Attributes:
        model: the backbone.
        defense: canonical spec.
        seeds: its cells; just one if each seed has its own row.
    """

    model: str
    defense: str
    seeds: tuple[SeedMeasures, ...]

    @property
    def not_learned(self) -> list[SeedMeasures]:
        """The seeds whose clean accuracy is not above chance."""
        return [cell for cell in self.seeds if cell.not_learned]


def table_rows(records: pd.DataFrame, worst: Worst | None, *, per_seed: bool) -> list[TableRow]:
    """The rows of these records, in the same order.

    Args:
        records: one row per measurement, see :class:`robustbench_tin.benchmarks.runs.records.Record`.
        worst: accuracy on images made on other cells.
        per_seed: make one row per seed.
    """
    rows: dict[tuple[str, str, int], list[SeedMeasures]] = {}
    for model, defense, cell in _cells(records, worst):
        rows.setdefault((model, defense, cell.seed if per_seed else 0), []).append(cell)
    return [TableRow(model, defense, tuple(cells)) for (model, defense, _), cells in rows.items()]


def _cells(records: pd.DataFrame, worst: Worst | None) -> Iterator[tuple[str, str, SeedMeasures]]:
    for (model, defense, seed), frame in records.groupby(["model", "defense", "seed"], sort=False):
        key = str(model), str(defense), int(str(seed))
        measures: dict[tuple[str, float], Mapping[Any, Any]] = {
            (str(row["attack"]), 0.0 if row["attack"] == CLEAN else float(row["eps"])): row
            for row in frame.to_dict("records")
        }
        others = worst.rows.get(key, {}) if worst is not None else {}
        measures |= {(TRANSFER, eps): row for eps, row in others.items()}
        shown = short_numbers(key[1])
        yield (
            key[0],
            shown,
            SeedMeasures(f"{key[0]} + {shown}", key[2], measures, frame["status"].nunique() == 1),
        )
