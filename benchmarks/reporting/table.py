"""A table of names and figures, independent of its rendering, and as Markdown; terminal.py prints it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from robustbench_tin.benchmarks.reporting.figure import DOUBTED, MISSING, UNCHECKED, Figure, Standing
from robustbench_tin.text import markdown

NOT_LEARNED = "not learned"


@dataclass(frozen=True)
class Table:
    """The content of a table, independent of its rendering.

    Attributes:
        title: one line.
        columns: headings; the first :attr:`label_columns` of them name a row.
        rows: texts, one per column.
        notes: lines below the table.
        dimmed: numbers of the rows with meaningless figures.
        label_columns: number of columns with names instead of figures.
        minor: numbers of the columns that a narrow terminal drops first.
        minor_name: their content, for the note that they were left out.
        explained: show a legend of the marks below the table.
        in_full: the option that prints the whole table if the terminal is too narrow.
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
        """The table as Markdown, under a bold title."""
        marks = ["---" if index < self.label_columns else "---:" for index in range(len(self.columns))]
        texts = [[_markdown(text) for text in line] for line in (self.columns, *self.rows)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in (texts[0], marks, *texts[1:]))
        notes = "".join(f"\n\n{markdown(line)}" for line in (*self.legend(best="bold", tie="≈"), *self.notes))
        return f"**{markdown(self.title)}**\n\n{body}{notes}"

    @property
    def figures(self) -> list[Figure]:
        """The figures with known parts, row by row."""
        return [text for row in self.rows for text in row if isinstance(text, Figure)]

    def with_columns(self, numbers: list[int]) -> Table:
        """The table with only these columns, labels included, in this order."""
        return replace(
            self,
            columns=tuple(self.columns[number] for number in numbers),
            rows=tuple(tuple(row[number] for number in numbers) for row in self.rows),
            minor=frozenset(place for place, number in enumerate(numbers) if number in self.minor),
        )

    def without(self, *, change: bool = False, interval: bool = False) -> Table:
        """The same table with these parts removed from its figures."""
        rows = tuple(
            tuple(
                text.without(change=change, interval=interval) if isinstance(text, Figure) else text
                for text in row
            )
            for row in self.rows
        )
        return replace(self, rows=rows)

    def legend(self, *, dims: bool = False, best: str = "", tie: str = "") -> list[str]:
        """One line that explains each mark in the table; empty if no mark occurs.

        Args:
            dims: rows with meaningless figures are dimmed, too.
            best: style of the best figures; empty: they have none.
            tie: style of figures that do not differ significantly from the best.
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
            f"{DOUBTED} unreliable, see the reason below": any(each.mark == DOUBTED for each in figures),
            f"{UNCHECKED} not checked, see the reason below": any(each.mark == UNCHECKED for each in figures),
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
    """The text of a Markdown cell; the best figure is bold, and a tie with it has a sign."""
    standing = text.standing if isinstance(text, Figure) else Standing.none
    shown = markdown(text)
    if standing is Standing.best:
        return f"**{shown}**"
    return f"{shown} ≈" if standing is Standing.tie else shown
