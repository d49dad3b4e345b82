"""The columns of a results table: top-1 and top-5, clean and under each attack at each eps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_tin.benchmarks.reporting.table_rows import TRANSFER
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN
from robustbench_tin.specs import eps_text, short_numbers

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.reporting.transfer_table import Worst


@dataclass(frozen=True)
class Column:
    """One column of figures.

    Attributes:
        name: its heading.
        attack: canonical spec, ``clean``, or :data:`TRANSFER`.
        eps: 0 for the clean figures.
        rank: 1 for top-1, 5 for top-5.
    """

    name: str
    attack: str
    eps: float
    rank: int

    @property
    def attacked(self) -> bool:
        """Whether its figures were measured under an attack of the run."""
        return self.attack not in (CLEAN, TRANSFER)


def columns_of(
    records: pd.DataFrame, attacks: Sequence[str], eps: Sequence[float] | None, worst: Worst | None
) -> list[Column]:
    """The columns of one table: top-1 first, clean figures before attacked ones.

    Args:
        records: the records of the run.
        attacks: the attacks of the table.
        eps: the budgets to show; None: all.
        worst: adds columns of top-1 on images made on other cells.
    """
    ranks = {attack: _ranks(records[records["attack"] == attack]) for attack in attacks}
    every = sorted({rank for found in ranks.values() for rank in found})
    columns = []
    for rank in every:
        columns.append(Column(f"top-{rank} clean", CLEAN, 0.0, rank))
        for attack in attacks:
            if attack != CLEAN and rank in ranks[attack]:
                columns += _attacked(records, attack, eps, rank, alone=len(attacks) == 1)
    transferred = [] if worst is None or {CLEAN, CERTIFIED} & set(attacks) else worst.eps
    return columns + [
        Column(f"{TRANSFER} {'eps ' if len(attacks) == 1 else ''}{eps_text(value)}", TRANSFER, value, 1)
        for value in transferred
        if eps is None or value in eps
    ]


def _ranks(attacked: pd.DataFrame) -> list[int]:
    """The measured ranks; an attack that stops on success has only that of its criterion."""
    return [rank for rank in (1, 5) if attacked[f"top{rank}"].notna().any()] or [1, 5]


def _attacked(
    records: pd.DataFrame, attack: str, eps: Sequence[float] | None, rank: int, *, alone: bool
) -> Iterator[Column]:
    budgets = {float(value) for value in records[records["attack"] == attack]["eps"]}
    name = "eps" if alone else short_numbers(attack)
    for value in sorted(budgets):
        if value > 0 and (eps is None or value in eps):
            yield Column(f"top-{rank} {name} {eps_text(value)}", attack, value, rank)
