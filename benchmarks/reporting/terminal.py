"""A table on a terminal: it shows the parts that fit the width, and names those left out."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from robustbench_tin.benchmarks.reporting.figure import Figure, Standing
from robustbench_tin.benchmarks.reporting.table import NOT_LEARNED, Table
from robustbench_tin.text import printable

# A longer name, or word of a heading, is broken at its punctuation if necessary. Names in several columns
# may be broken into shorter pieces.
_LONG_LABEL, _SHORTEST_LABEL, _LONG_HEADING = 28, 10, 8
_UNBOUNDED = 100_000
_NARROWEST, _NO_TERMINAL = 60, 100


def tables_text(tables: Iterable[Table]) -> str:
    """Tables one below the other, as text for a terminal of this width without colours."""
    width = max(shutil.get_terminal_size((_NO_TERMINAL, 24)).columns, _NARROWEST)
    text = io.StringIO()
    printer = Console(
        file=text,
        width=width,
        color_system=None,
        markup=False,
        emoji=False,
        highlight=False,
        force_jupyter=False,  # else it displays in a notebook, and writes nothing
    )
    for number, table in enumerate(tables):
        printer.print(*([""] if number else []), TerminalTable(table), sep="\n")
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


@dataclass(frozen=True)
class _Layout:
    """The shown parts of a table, and their layout.

    Attributes:
        minor: show its minor columns.
        changes: show points lost and gained.
        intervals: show the intervals of its figures.
        lines: lines per figure: ``one``; ``two`` (``32.7 ± 1.2`` on the first); or ``each`` part on its own.
    """

    minor: bool = False
    changes: bool = False
    intervals: bool = False
    lines: str = "one"

    def of(self, table: Table) -> Table:
        """The parts of a table that this layout shows."""
        kept = [number for number in range(len(table.columns)) if self.minor or number not in table.minor]
        return table.with_columns(kept).without(change=not self.changes, interval=not self.intervals)

    def left_out(self, table: Table) -> list[str]:
        """A line that names the parts that this layout hides; empty if it hides none."""
        figures = table.figures
        gone = {
            table.minor_name: bool(table.minor) and not self.minor,
            "points lost": any(each.lost is not None for each in figures) and not self.changes,
            "intervals": any(each.interval for each in figures) and not self.intervals,
        }
        names = ", ".join(name for name, is_gone in gone.items() if is_gone)
        more = "A wider terminal shows more" + (f", {table.in_full} all." if table.explained else ".")
        return [f"Left out at this width: {names}. {more}"] if names else []


# From the largest to the smallest; if that does not fit either, columns are split into several parts.
_LAYOUTS = (
    _Layout(minor=True, changes=True, intervals=True),
    _Layout(changes=True, intervals=True),
    _Layout(changes=True, intervals=True, lines="two"),
    _Layout(intervals=True),
    _Layout(intervals=True, lines="two"),
    _Layout(),
    _Layout(lines="each"),
)


@dataclass(frozen=True)
class TerminalTable:
    """Renders a table; texts are shown literally, even with markup or control characters.

    Names of rows are never cut: minor columns, points lost and intervals are dropped first.
    """

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if self.table.title:
            # The table's own title and caption would be as narrow as the table.
            yield Text(printable(self.table.title), "table.title")
        layout, parts = _fitted(self.table, console, options)
        for number, part in enumerate(parts):
            yield from [Text("(more columns)", "table.caption")] if number else []
            yield part
        legend = layout.of(self.table).legend(dims=console.is_terminal and not console.no_color)
        for line in (*legend, *layout.left_out(self.table), *self.table.notes):
            yield Text(printable(line), "table.caption")


def _fitted(table: Table, console: Console, options: ConsoleOptions) -> tuple[_Layout, list[RichTable]]:
    """The first layout that fits, with its grid; else the last, with the grids of its parts."""
    unbounded = options.update(width=_UNBOUNDED)

    def fits(grid: RichTable) -> bool:
        return Measurement.get(console, unbounded, grid).maximum <= options.max_width

    columns = list(zip(table.columns, *table.rows, strict=True))
    labels = sum(max(map(cell_len, column)) for column in columns[: table.label_columns])
    longest = _LONG_LABEL if labels > options.max_width / 2 else None
    for layout in _LAYOUTS:
        grid = _grid(layout.of(table), layout.lines, longest)
        if fits(grid) or table.label_columns == len(columns):
            return layout, [grid]
    least = _LAYOUTS[-1]
    return least, _parts(least.of(table), longest, fits)


def _parts(shown: Table, longest: int | None, fits: Callable[[RichTable], bool]) -> list[RichTable]:
    """The smallest number of grids for all columns; each repeats the names of the rows."""
    figures = range(shown.label_columns, len(shown.columns))
    while (longest or 0) > _SHORTEST_LABEL and not all(
        fits(_part(shown, [number], longest)) for number in figures
    ):
        longest = (longest or 0) - 1
    parts: list[list[int]] = []
    for number in figures:
        wider = [*parts[-1], number] if parts else []
        if wider and fits(_part(shown, wider, longest)):
            parts[-1] = wider
        else:
            parts.append([number])
    return [_part(shown, numbers, longest) for numbers in parts]


def _part(shown: Table, numbers: Sequence[int], longest: int | None) -> RichTable:
    """Some columns of figures, after all names of the rows."""
    return _grid(shown.with_columns([*range(shown.label_columns), *numbers]), "each", longest)


def _grid(table: Table, lines: str, longest: int | None) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate(table.columns):
        label = index < table.label_columns
        heading = printable(column) if label else _heading(column)
        grid.add_column(
            Text(heading),
            justify="left" if label else "right",
            overflow="fold",
        )
    for number, row in enumerate(table.rows):
        names = [
            Text(_name(printable(name), longest=longest, tall=lines == "each"))
            for name in row[: table.label_columns]
        ]
        figures = [_figure(text, lines) for text in row[table.label_columns :]]
        grid.add_row(*names, *figures, style="dim" if number in table.dimmed else None)
    return grid


def _heading(column: str) -> str:
    """A heading with each word on its own line."""
    return "\n".join(_folded(printable(word), _LONG_HEADING) for word in column.split(" "))


def _name(text: str, *, longest: int | None, tall: bool) -> str:
    """A row's name or mark; in a tall row a mark of two words takes two lines."""
    if tall and text.endswith(NOT_LEARNED):
        return text.replace(" ", "\n")
    return _folded(text, longest)


def _folded(text: str, longest: int | None) -> str:
    """A long name in several lines, broken after ``,`` and ``:`` and before ``+``; no piece is cut."""
    if longest is None or cell_len(text) <= longest:
        return text
    lines = [""]
    for piece in re.split(r"(?<=[,:])|(?=\+)", text):
        if lines[-1] and cell_len(lines[-1] + piece) > longest:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _figure(text: str, lines: str) -> Text:
    """A figure whose drop is coloured: red from 10 points, else yellow."""
    parts = text.parts if isinstance(text, Figure) else [text]
    first = 2 if isinstance(text, Figure) and text.deviation is not None and lines == "two" else 1
    shown = Text()
    for number, part in enumerate(parts):
        separator = "" if not number else " " if lines == "one" or number < first else "\n"
        shown.append(separator)
        shown.append(printable(part), style=_style(text, part))
    return shown


def _style(text: str, part: str) -> str | None:
    if isinstance(text, Figure) and text.standing is Standing.best and part == text.parts[0]:
        return "bold"
    lost = text.lost if isinstance(text, Figure) and part.startswith("▼") else None
    return None if lost is None else "red" if lost >= 10 else "yellow"
