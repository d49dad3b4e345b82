"""A table: names and figures, free of how they are shown, and as Markdown; terminal.py prints it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from robustbench_tin.benchmarks.reporting.figure import DOUBTED, MISSING, UNCHECKED, Figure, Standing
from robustbench_tin.text import markdown

NOT_LEARNED = "not learned"


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
        minor: numbers of the columns that give way first on a narrow terminal.
        minor_name: what they show, for the note that they were left out.
        explained: put a legend of the marks that occur below the table.
        in_full: the option that prints all of it, for a terminal that is too narrow.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    label_columns: int
    notes: tuple[str, ...] = field(default=())
    dimmed: frozenset[int] = frozenset()
    minor: frozenset[int] = frozenset()
    minor_name: str = ""
    explained: bool = False
    in_full: str = "--format csv"

    def markdown(self) -> str:
        """As a Markdown table under a bold title."""
        marks = ["---" if index < self.label_columns else "---:" for index in range(len(self.columns))]
        texts = [[_markdown(text) for text in line] for line in (self.columns, *self.rows)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in (texts[0], marks, *texts[1:]))
        notes = "".join(f"\n\n{markdown(line)}" for line in (*self.legend(best="bold", tie="≈"), *self.notes))
        return f"**{markdown(self.title)}**\n\n{body}{notes}"

    @property
    def figures(self) -> list[Figure]:
        """The figures whose parts are known, row by row."""
        return [text for row in self.rows for text in row if isinstance(text, Figure)]

    def with_columns(self, numbers: list[int]) -> Table:
        """Some of the columns, labels among them, in this order."""
        return replace(
            self,
            columns=tuple(self.columns[number] for number in numbers),
            rows=tuple(tuple(row[number] for number in numbers) for row in self.rows),
            minor=frozenset(place for place, number in enumerate(numbers) if number in self.minor),
        )

    def without(self, *, change: bool = False, interval: bool = False) -> Table:
        """The same table, its figures without these parts."""
        rows = tuple(
            tuple(
                text.without(change=change, interval=interval) if isinstance(text, Figure) else text
                for text in row
            )
            for row in self.rows
        )
        return replace(self, rows=rows)

    def legend(self, *, dims: bool = False, best: str = "", tie: str = "") -> list[str]:
        """One line that explains each mark in the table; none if no mark occurs.

        Args:
            dims: rows whose figures mean nothing are dimmed, too.
            best: how the best figures look; empty: they look like the others.
            tie: how those look that do not differ significantly from the best.
        """
        if not self.explained:
            return []
        figures = self.figures
        changes = [each.lost for each in figures if each.lost is not None]
        labels = [label for row in self.rows for label in row[: self.label_columns]]
        dimmed = " (dimmed)" if dims and self.dimmed else ""
        marks = {
            "▼ points lost to the attack": any(lost >= 0 for lost in changes),
            "▲ points gained under attack": any(lost < 0 for lost in changes),
            "± standard deviation over seeds": any(each.deviation is not None for each in figures),
            "(n of m seeds): the other seeds have no figure": any(each.seeds for each in figures),
            "[ ] 95 % interval": any(each.interval for each in figures),
            f"{DOUBTED} unreliable, for a reason below": any(each.mark == DOUBTED for each in figures),
            f"{UNCHECKED} not checked, for a reason below": any(each.mark == UNCHECKED for each in figures),
            f"{best} the best": best and any(each.standing is Standing.best for each in figures),
            f"{tie} not significantly different from the best": tie
            and any(each.standing is Standing.tie for each in figures),
            f"{MISSING} no figure": any(each.number == MISSING for each in figures),
            f"{NOT_LEARNED}{dimmed}: clean top-1 is not above chance (p ≥ 0.001), so the row's figures under"
            " attack mean nothing": any(NOT_LEARNED in label for label in labels),
        }
        said = [words for words, occurs in marks.items() if occurs]
        return [f"Marks: {'; '.join(said)}."] if said else []


def _markdown(text: str) -> str:
    """The text of a cell; the best figure is bold, and a tie with it has a sign."""
    standing = text.standing if isinstance(text, Figure) else Standing.none
    shown = markdown(text)
    if standing is Standing.best:
        return f"**{shown}**"
    return f"{shown} ≈" if standing is Standing.tie else shown
