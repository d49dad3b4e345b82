"""Tables of transfers: source × target, and the worst source of each cell for the main tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustbench_tin.benchmarks.codes.status import StatusCode
from robustbench_tin.benchmarks.reporting.table import NOT_LEARNED, Table
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.specs import eps_text
from robustbench_tin.text import counted

if TYPE_CHECKING:
    import pandas as pd


Key = tuple[str, str, int]


@dataclass(frozen=True)
class Worst:
    """For each cell and eps, the other cell and attack whose images it misclassifies most often.

    Attributes:
        rows: record of that measurement, by cell and eps; a failed one if all have failed.
        failed: number of failed measurements, which were not compared.
    """

    rows: Mapping[Key, Mapping[float, Mapping[Any, Any]]]
    failed: int

    @property
    def eps(self) -> list[float]:
        """The budgets with transfer measurements."""
        return sorted({eps for by_eps in self.rows.values() for eps in by_eps})

    def notes(self, eps: Sequence[float]) -> list[str]:
        """Lines that name the sources at these budgets, one per source and attack."""
        if not eps:
            return []
        targets: dict[str, list[str]] = {}
        for key, by_eps in self.rows.items():
            for value, row in sorted(by_eps.items()):
                if value in eps and row["status_code"] == StatusCode.ok:
                    source = f"{_label(_source_of(row))} by {row['attack']}"
                    targets.setdefault(source, []).append(f"{_label(key)} at {eps_text(value)}")
        notes = ["worst transfer: the lowest top-1 on images made on another cell."]
        notes += [f"Made on {source}, for {'; '.join(names)}" for source, names in targets.items()]
        if self.failed:
            notes.append(f"{self.failed} transfers failed and were not compared; see transfer.md.")
        return notes


def worst_sources(transfers: pd.DataFrame) -> Worst | None:
    """The worst source of each cell and eps; None without transfers.

    Args:
        transfers: one row per transfer, see
            :class:`robustbench_tin.benchmarks.runs.transfer_records.TransferRecord`.
    """
    if transfers.empty:
        return None
    rows: dict[Key, dict[float, Mapping[Any, Any]]] = {}
    # A failed measurement has no top-1 and comes last, so it is used only if there is no other.
    ordered = transfers.sort_values("top1", kind="stable", na_position="last")
    for row in ordered.to_dict("records"):
        rows.setdefault(_key_of(row), {}).setdefault(float(row["eps"]), row)
    return Worst(rows, int((transfers["status_code"] != StatusCode.ok).sum()))


def transfer_tables(transfers: pd.DataFrame, records: pd.DataFrame) -> list[Table]:
    """One table per attack and eps: a row per source, a column per target, top-1 in percent.

    Args:
        transfers: one row per transfer, see
            :class:`robustbench_tin.benchmarks.runs.transfer_records.TransferRecord`.
        records: the records of the run, for the clean figures and the order of the cells.
    """
    clean = {_key_of(row): row for row in records[records["attack"] == CLEAN].to_dict("records")}
    return [
        _table(group.to_dict("records"), clean)
        for _, group in transfers.groupby(["attack", "eps"], sort=False)
    ]


def _table(rows: Sequence[Mapping[Any, Any]], clean: Mapping[Key, Mapping[Any, Any]]) -> Table:
    measures = {(_source_of(row), _key_of(row)): row for row in rows}
    there = {key for pair in measures for key in pair}
    cells = [key for key in clean if key in there]
    numbers = {key: str(index) for index, key in enumerate(cells, 1)}
    learned = {key: clean[key]["above_chance"] is not False for key in cells}
    with_mark = not all(learned.values())

    def line(label: str, mark: str, figures: Sequence[str]) -> tuple[str, ...]:
        return (label, *([mark] if with_mark else []), *figures)

    lines = [line(CLEAN, "", [_figure(clean[target]) for target in cells])]
    for source in cells:
        lines.append(
            line(
                f"{numbers[source]} {_label(source)}",
                "" if learned[source] else NOT_LEARNED,
                [_figure(measures.get((source, target))) for target in cells],
            )
        )
    failures: dict[str, list[str]] = {}
    for (source, target), row in measures.items():
        if row["status_code"] != StatusCode.ok:
            failures.setdefault(row["status"], []).append(f"{numbers[source]} → {numbers[target]}")
    return Table(
        title=_title(rows[0]),
        columns=line("source \\ target", "", [numbers[target] for target in cells]),
        rows=tuple(lines),
        label_columns=2 if with_mark else 1,
        notes=(
            "Rows: the cell that the images were made on. Columns: the cell that was measured on them, by the"
            " number of its row.",
            *([f"{NOT_LEARNED}: clean top-1 is not above chance (p ≥ 0.001)."] if with_mark else []),
            *(f"{status} ({', '.join(pairs)})" for status, pairs in failures.items()),
        ),
        dimmed=frozenset(number for number, source in enumerate(cells, 1) if not learned[source]),
    )


def _title(row: Mapping[Any, Any]) -> str:
    conditions = [row["norm"], f"eps {eps_text(row['eps'])}", row["mode"]]
    conditions += [f"{row['eot']} passes per gradient"] if row["eot"] > 1 else []
    conditions += ["oblivious: on the bare classifier"] if row["oblivious"] else []
    conditions += ["rounded to 8 bits"] if row["eight_bit"] else []
    return (
        f"Transfer of {row['attack']} ({', '.join(conditions)}), top-1 in %: {row['data']},"
        f" {counted(row['classes'], 'class', 'classes')}, {counted(row['n'], 'image')}"
    )


def _figure(row: Mapping[Any, Any] | None) -> str:
    if row is None:
        return "–"
    return f"{100 * row['top1']:.1f}" if row["status_code"] == StatusCode.ok else "failed"


def _key_of(row: Mapping[Any, Any]) -> Key:
    return str(row["model"]), str(row["defense"]), int(row["seed"])


def _source_of(row: Mapping[Any, Any]) -> Key:
    return str(row["source_model"]), str(row["source_defense"]), int(row["source_seed"])


def _label(key: Key) -> str:
    model, defense, seed = key
    return f"{model} + {defense}, seed {seed}"
