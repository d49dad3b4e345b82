"""A table of the page that readers sort and filter: texts with the values that they are sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is shown first.
        value: what rows are sorted by; None: the text, or nothing in a column of numbers.
        detail: smaller, behind the text: an interval, say.
        tone: ``bad``, ``warn``, ``good`` or nothing; the text says the same in words.
    """

    text: str
    value: float | None = None
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: its heading.
        number: whether it holds numbers, which are aligned right and sorted by value.
        choices: offer a list of its texts to filter rows by.
        label: whether it names the row: its cells are the rows' headings.
        wide: whether it holds sentences.
    """

    title: str
    number: bool = False
    choices: bool = False
    label: bool = False
    wide: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table.

    Attributes:
        name: short, and no other table's: part of the ids in the page.
        caption: one line.
        columns: of each row.
        rows: in the order in which they are shown first.
        notes: lines below it.
        filters: offer filters; a short table needs none.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default=())
    filters: bool = True

    @property
    def filtered_columns(self) -> list[tuple[int, Column, list[str]]]:
        """Columns to filter by, each with its number and its texts."""
        found = []
        for number, column in enumerate(self.columns):
            texts = list(dict.fromkeys(row[number].text for row in self.rows)) if column.choices else []
            if len(texts) > 1:
                found.append((number, column, texts))
        return found
