"""A table as HTML, for notebooks; every text is shown literally."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from robustbench_tin.benchmarks.reporting.figure import Figure, Standing
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.text import printable


def table_html(table: Table) -> str:
    """The table with its title above, and its legend and notes below.

    >>> small = Table("a < b", ("model", "top-1"), (("m", "50.0"),), 1)
    >>> table_html(small)[:43]
    '<table><caption>a &lt; b</caption><thead><t'
    """
    head = _row(table.columns, "th", table.label_columns)
    body = "".join(
        _row(row, "td", table.label_columns, dimmed=number in table.dimmed)
        for number, row in enumerate(table.rows)
    )
    notes = "".join(
        f"<p><small>{_text(line)}</small></p>"
        for line in (*table.legend(dims=True, best="bold", tie="underlined"), *table.notes)
    )
    caption = f"<caption>{_text(table.title)}</caption>"
    return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>{notes}"


def tables_html(tables: Iterable[Table]) -> str:
    """Tables one below the other."""
    return "".join(map(table_html, tables))


def _row(texts: tuple[str, ...], kind: str, labels: int, *, dimmed: bool = False) -> str:
    sides = ["left" if number < labels else "right" for number in range(len(texts))]
    cells = [
        f'<{kind} style="text-align: {side}">{_cell(text)}</{kind}>'
        for side, text in zip(sides, texts, strict=True)
    ]
    style = ' style="opacity: 0.5"' if dimmed else ""
    return f"<tr{style}>{''.join(cells)}</tr>"


def _cell(text: str) -> str:
    """The text of a cell; the best figure is bold, and a tie with it underlined."""
    standing = text.standing if isinstance(text, Figure) else Standing.none
    if standing is Standing.best:
        return f"<strong>{_text(text)}</strong>"
    return f"<u>{_text(text)}</u>" if standing is Standing.tie else _text(text)


def _text(text: str) -> str:
    return escape(printable(text))
