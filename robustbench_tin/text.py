"""Texts from data, made safe for the place that shows them.

Names, paths and error messages come from files, plug-ins and models. They may hold control characters, line
breaks or the markup of the place that shows them. Each place has one function here: :func:`printable` for
terminals and logs, :func:`markdown` for Markdown pages, :func:`latex` for papers, :func:`spreadsheet_cell`
for CSV files that people open.
"""

from __future__ import annotations

import re
import unicodedata

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# An underscore within a word starts no emphasis on GitHub, and names are full of them.
_MARKS = re.compile(r"[&<>]|[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^[#+=-]")
_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"},
    # Behind the end of a row these would be its arguments.
    **{"[": "{[}", "*": "{*}"},
    # Of these pdflatex knows none by itself.
    **{"–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "→": r"$\to$"},
    **{"▼": r"$\downarrow$", "▲": r"$\uparrow$", "≤": r"$\le$", "≥": r"$\ge$", "≈": r"$\approx$"},
    **{"∞": r"$\infty$", "’": "'", "\u00a0": "~", "\u202f": r"\,"},
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    r"""One line without control characters: each is shown as its escape.

    Line breaks, terminal controls, bidirectional controls and bytes that no encoding could read are escaped;
    spaces of any width are kept.

    >>> printable("a\x1b[2J\nb")
    'a\\x1b[2J\\nb'
    """
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def markdown(text: str) -> str:
    r"""Text within one line or table cell of a Markdown page, shown as it is.

    >>> markdown("a|b <img> `c`")
    'a\\|b &lt;img&gt; \\`c\\`'
    """
    return _MARKS.sub(_escaped, printable(text).strip())


def latex(text: str) -> str:
    r"""Text within one line or table cell of a LaTeX document, shown as it is.

    >>> latex("50 % of a_b, ± 1")
    '50 \\% of a\\_b, $\\pm$ 1'
    """
    return "".join(_LATEX.get(letter, letter) for letter in printable(text).strip())


def spreadsheet_cell(text: str) -> str:
    """A text cell that no spreadsheet takes for a formula: one that looks like one gets an apostrophe first.

    Numbers are left as they are.

    >>> spreadsheet_cell("=1+1"), spreadsheet_cell("resnet50"), spreadsheet_cell("-1")
    ("'=1+1", 'resnet50', '-1')
    """
    return f"'{text}" if _is_formula(text) else text


def spreadsheet_path(text: str) -> str:
    """The same of a relative path, which still names its file.

    >>> spreadsheet_path("=1.png")
    './=1.png'
    """
    return f"./{text}" if _is_formula(text) else text


def counted(number: int, noun: str, several: str | None = None) -> str:
    """A number of things; ``several`` is the plural, if it is not the noun with an s.

    >>> counted(1, "cell"), counted(1200, "image")
    ('1 cell', '1,200 images')
    """
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def brief(value: object) -> str:
    """A value for a message: its text if that is short, else its type."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def _is_formula(text: str) -> bool:
    if not text.startswith(_FORMULA):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def _shown(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")


def _escaped(found: re.Match[str]) -> str:
    mark = found[0]
    return _ENTITIES.get(mark, f"\\{mark}")
