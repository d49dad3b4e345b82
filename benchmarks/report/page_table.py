"""A table of the page that readers can sort and filter: texts with their sort values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: the main text.
        value: sort value of the row; None: the text, or nothing in a column of numbers.
        detail: smaller text after it, such as an interval.
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
        number: whether it contains numbers, which are aligned right and sorted by value.
        choices: offer a list of its texts to filter rows by.
        label: whether its cells are the headings of the rows.
        wide: whether it contains sentences.
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
        name: short and unique: part of the ids in the page.
        caption: one line.
        columns: the columns of each row.
        rows: the rows in their initial order.
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
        """Columns to filter by, each with its number and its distinct texts."""
        found = []
        for number, column in enumerate(self.columns):
            texts = list(dict.fromkeys(row[number].text for row in self.rows)) if column.choices else []
            if len(texts) > 1:
                found.append((number, column, texts))
        return found
