r"""A table as LaTeX for a paper: the package ``booktabs`` is all that it needs."""

from __future__ import annotations

import re

from robustbench_tin.benchmarks.reporting.figure import Figure, Standing
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.text import latex

# The sign of a number, not a hyphen within a name.
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")


def table_latex(table: Table) -> str:
    r"""The table as a float with ``\toprule``, its title as the caption, its legend and notes below.

    The best figures are bold; those that do not differ significantly from them are underlined. Points lost
    are left out: a paper's table is narrow, and they are the difference of two of its columns.

    >>> print(table_latex(Table("a & b", ("model", "top-1"), (("m_1", "50.0"),), 1)))
    \begin{table}
      \centering
      \caption{a \& b}
      \begin{tabular}{lr}
        \toprule
        model & top-1 \\
        \midrule
        m\_1 & 50.0 \\
        \bottomrule
      \end{tabular}
    \end{table}
    """
    shown = table.without(change=True)
    sides = "l" * shown.label_columns + "r" * (len(shown.columns) - shown.label_columns)
    notes = (*shown.legend(best="bold:", tie="underlined:"), *shown.notes)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex(shown.title)}}}",
        rf"  \begin{{tabular}}{{{sides}}}",
        r"    \toprule",
        f"    {_row([_heading(text) for text in shown.columns])}",
        r"    \midrule",
        *(f"    {_row([_cell(text) for text in row])}" for row in shown.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par{{\footnotesize {latex(note)}}}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _heading(text: str) -> str:
    """A heading with each word on its own line, so that columns stay narrow."""
    words = [latex(word) for word in text.split(" ") if word]
    lines = r" \\ ".join(words)
    return lines if len(words) < 2 else rf"\shortstack{{{lines}}}"


def _cell(text: str) -> str:
    standing = text.standing if isinstance(text, Figure) else Standing.none
    shown = _MINUS.sub("$-$", latex(text))
    if standing is Standing.best:
        return rf"\textbf{{{shown}}}"
    return rf"\underline{{{shown}}}" if standing is Standing.tie else shown
