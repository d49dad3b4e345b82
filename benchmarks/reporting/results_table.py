"""Tables: records arranged to be read, and rendered for the terminal and as Markdown.

One table an attack. Rows are cells; columns are top-1 and top-5 at each eps, in percent, each attacked
figure with its drop from the clean one in points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from robustbench_tin.benchmarks.codes.status import StatusCode
from robustbench_tin.benchmarks.codes.verdict import Reason, Trust, Verdict
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN
from robustbench_tin.text import markdown, printable

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group

    from robustbench_tin.benchmarks.reporting.transfer_table import Worst

NOT_LEARNED = "not learned"
DOUBTED, UNCHECKED = "!", "?"
_MARKS = {Trust.ok: "", Trust.unchecked: UNCHECKED, Trust.doubted: DOUBTED}


@dataclass(frozen=True)
class Table:
    """What a table says, free of how it is shown.

    Attributes:
        title: one line.
        columns: headings; the first :attr:`label_columns` of them name a row.
        rows: texts, one a column.
        notes: lines below the table.
        dimmed: numbers of the rows whose figures mean nothing.
        label_columns: how many columns hold names rather than figures.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    label_columns: int
    notes: tuple[str, ...] = field(default=())
    dimmed: frozenset[int] = frozenset()

    def markdown(self) -> str:
        """As a Markdown table under a bold title."""
        marks = ["---" if index < self.label_columns else "---:" for index in range(len(self.columns))]
        texts = [[markdown(text) for text in line] for line in (self.columns, *self.rows)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in (texts[0], marks, *texts[1:]))
        notes = "".join(f"\n\n{markdown(note)}" for note in self.notes)
        return f"**{markdown(self.title)}**\n\n{body}{notes}"

    def rich(self) -> Group:
        """For the terminal; every text is shown as it is, whatever markup or control characters it holds."""
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for index, column in enumerate(self.columns):
            label = index < self.label_columns
            # On a narrow terminal a drop goes below its figure; a figure is never cut.
            heading = printable(column) if label else "\n".join(map(printable, column.split(" ")))
            table.add_column(
                Text(heading), justify="left" if label else "right", no_wrap=index == 0, min_width=5
            )
        for number, row in enumerate(self.rows):
            style = "dim" if number in self.dimmed else None
            table.add_row(*(_styled(Text, text) for text in row), style=style)
        # Not the table's own title and caption, which would be as narrow as the table.
        above = [Text(printable(self.title), "table.title")] if self.title else []
        below = [Text(printable(note), "table.caption") for note in self.notes]
        return Group(*above, table, *below)


def tables(
    records: pd.DataFrame, eps: Sequence[float] | None = None, worst: Worst | None = None
) -> list[Table]:
    """One table an attack, in the records' order; only clean measures make a single table.

    Args:
        records: as of :class:`robustbench_tin.benchmarks.runs.records.Record`.
        eps: the budgets to show; None: all there are. The clean columns are always there.
        worst: what images made on other cells leave right, shown as columns of its own.
    """
    if records.empty:
        return []
    attacks = [name for name in records["attack"].unique() if name != CLEAN] or [CLEAN]
    return [_table(records, attack, eps, worst) for attack in attacks]


def _table(records: pd.DataFrame, attack: str, eps: Sequence[float] | None, worst: Worst | None) -> Table:
    attacked = records[records["attack"] == attack]
    budgets = sorted(
        {float(value) for value in attacked["eps"] if value > 0 and (eps is None or value in eps)}
    )
    # An attack that stops on success measures its criterion only.
    ranks = [k for k in (1, 5) if attacked[f"top{k}"].notna().any()] or [1, 5]
    with_seed = records["seed"].nunique() > 1
    with_mark = bool((records["above_chance"] == False).any())  # noqa: E712 - the column also holds None
    labels = ["model", "defense", *(["seed"] if with_seed else []), *([""] if with_mark else [])]
    figures = [
        f"top-{k} {'clean' if budget == 0 else f'eps {budget:g}'}"
        for k in ranks
        for budget in (0.0, *budgets)
    ]
    if attack in (CLEAN, CERTIFIED):
        worst = None
    transferred = [value for value in worst.eps if eps is None or value in eps] if worst is not None else []
    figures += [f"worst transfer eps {budget:g}" for budget in transferred]
    rows: list[tuple[str, ...]] = []
    failures: list[str] = []
    remarks: list[str] = []
    dimmed: list[int] = []
    doubts: dict[Reason, list[str]] = {}
    unchecked: dict[Reason, list[str]] = {}
    for (model, defense, seed), cell in records.groupby(["model", "defense", "seed"], sort=False):
        if attack == CERTIFIED and not (cell["attack"] == CERTIFIED).any():
            continue  # a defense that proves nothing
        measures = {
            0.0 if row["attack"] == CLEAN else float(row["eps"]): row
            for row in cell[cell["attack"].isin([CLEAN, attack])].to_dict("records")
        }
        learned = measures.get(0.0, {}).get("above_chance")
        mark = [NOT_LEARNED if learned is False else ""] if with_mark else []
        dimmed += [len(rows)] if learned is False else []
        texts = [_figure(measures, budget, f"top{k}") for k in ranks for budget in (0.0, *budgets)]
        if worst is not None:
            others = worst.rows.get((str(model), str(defense), int(str(seed))), {})
            texts += [_figure({**measures, **others}, budget, "top1") for budget in transferred]
        rows.append((str(model), str(defense), *([str(seed)] if with_seed else []), *mark, *texts))
        whole = cell["status"].nunique() == 1  # of a cell that was not trained, for one
        failures += [
            f"{model} + {defense}, seed {seed}{'' if whole else _at(row)}: {row['status']}"
            for row in measures.values()
            if row["status_code"] != StatusCode.ok
        ]
        remarks += [remark for row in measures.values() for remark in row["remark_list"]]
        name = f"{model} + {defense}, seed {seed}"
        for budget in (0.0, *budgets):
            verdict = _verdict(measures.get(budget))
            at = f"eps {budget:g}" if budget else CLEAN
            for reason in verdict.doubts:
                doubts.setdefault(reason, []).append(f"{name}, {at}")
            # What could not be checked of a cell, could not at any eps.
            for reason in verdict.unchecked if verdict.state is Trust.unchecked else ():
                unchecked.setdefault(reason, []).append(name)
    return Table(
        title=_title(records, attack),
        columns=(*labels, *figures),
        rows=tuple(rows),
        label_columns=len(labels),
        notes=(
            *_notes(records, with_mark),
            *(worst.notes(transferred) if worst is not None else ()),
            *dict.fromkeys(remarks),
            *dict.fromkeys(failures),
            *_reasons(DOUBTED, doubts),
            *_reasons(f"{UNCHECKED} {Trust.unchecked}:", unchecked),
        ),
        dimmed=frozenset(dimmed),
    )


def _title(records: pd.DataFrame, attack: str) -> str:
    attacked = records[records["attack"] == attack]
    first = attacked.iloc[0]
    conditions = [first["norm"], first["mode"]]
    conditions += [f"{first['eot']} passes a gradient"] if first["eot"] > 1 else []
    conditions += ["oblivious: on the bare classifier"] if first["oblivious"] else []
    conditions += ["rounded to 8 bits"] if first["eight_bit"] else []
    under = "clean" if attack == CLEAN else f"under {attack} ({', '.join(conditions)})"
    if attack == CERTIFIED:
        under = f"that no attack within {first['norm']} eps can take (certified lower bound)"
    return f"Accuracy in % {under}: {first['data']}, {first['classes']} classes, {first['n']:,} images"


def _notes(records: pd.DataFrame, with_mark: bool) -> list[str]:
    ok = records[records["status_code"] == StatusCode.ok]
    notes = []
    if not ok.empty:
        half = max(((ok[f"{k}_high"] - ok[f"{k}_low"]) / 2).astype(float).max() for k in ("top1", "top5"))
        notes.append(
            f"▼ points lost to the attack. 95 % intervals reach at most {100 * half:.1f} points either way."
        )
    if with_mark:
        notes.append(
            f"{NOT_LEARNED}: clean top-1 is not above chance (p ≥ 0.001);"
            " such a row's figures under attack mean nothing."
        )
    return notes


def _verdict(row: Mapping[Any, Any] | None) -> Verdict:
    """The verdict on a figure; of one that is not there, or of which no checks were asked for, nothing."""
    reasons = None if row is None or row["status_code"] != StatusCode.ok else row["trust_codes"]
    return Verdict.of(map(Reason.model_validate, reasons)) if isinstance(reasons, list) else Verdict()


def _reasons(mark: str, cells_by_reason: Mapping[Reason, Sequence[str]]) -> list[str]:
    """One line a reason, with the cells that it holds for."""
    return [
        f"{mark} {reason} ({'; '.join(dict.fromkeys(cells))})" for reason, cells in cells_by_reason.items()
    ]


def _figure(measures: Mapping[float, Any], eps: float, column: str) -> str:
    row = measures.get(eps)
    if row is None:
        return "–"
    if row["status_code"] != StatusCode.ok:
        return StatusCode(row["status_code"]).figure
    if row[column] is None or row[column] != row[column]:
        return "–"
    text = f"{100 * row[column]:.1f}" + _MARKS[_verdict(row).state]
    clean = measures.get(0.0)
    if eps > 0 and clean is not None and clean["status_code"] == StatusCode.ok:
        return with_change(text, 100 * (clean[column] - row[column]))
    return text


def _at(row: Mapping[Any, Any]) -> str:
    """Which measure a line is about."""
    return ", " + (CLEAN if row["attack"] == CLEAN else f"{row['attack']} at {row['eps']:g}")


class Dropped(str):
    """A figure's text with the points that it lost behind it.

    Attributes:
        figure: the text before them.
        lost: points, 0 or more.
    """

    figure: str
    lost: float

    def __new__(cls, figure: str, lost: float) -> Self:
        """The text of both."""
        text = super().__new__(cls, f"{figure} ▼{lost:.1f}")
        text.figure, text.lost = figure, lost
        return text


def with_change(figure: str, drop: float | None) -> str:
    """A figure with the points that it lost or won behind it; None: neither is known."""
    if drop is None:
        return figure
    return Dropped(figure, drop) if drop >= 0 else f"{figure} ▲{-drop:.1f}"


def _styled(text_type: Any, text: str) -> Any:
    """A figure with its drop in red, the stronger the larger."""
    if not isinstance(text, Dropped):
        return text_type(printable(text))
    styled = text_type(f"{printable(text.figure)} ")
    styled.append(f"▼{text.lost:.1f}", style="red" if text.lost >= 10 else "yellow")
    return styled
