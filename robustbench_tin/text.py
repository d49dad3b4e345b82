"""Texts from data, made safe to show.

Names, paths and error messages come from files, plug-ins and models. They may contain control characters,
line breaks or markup. Each place has one function here: :func:`printable` for terminals and logs,
:func:`markdown` for Markdown pages, :func:`latex` for papers, :func:`spreadsheet_cell` for CSV files that
users open.
"""

from __future__ import annotations

import re
import unicodedata

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# An underscore within a word starts no emphasis on GitHub, and many names have one.
_MARKS = re.compile(r"[&<>]|[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^[#+=-]")
_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"},
    # After the end of a row, these would be read as its arguments.
    **{"[": "{[}", "*": "{*}"},
    # pdflatex does not know these characters.
    **{"–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "→": r"$\to$"},
    **{"▼": r"$\downarrow$", "▲": r"$\uparrow$", "≤": r"$\le$", "≥": r"$\ge$", "≈": r"$\approx$"},
    **{"∞": r"$\infty$", "’": "'", "\u00a0": "~", "\u202f": r"\,"},
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    r"""One line without control characters: each is shown as its escape.

    Line breaks, terminal controls, bidirectional controls and bytes without an encoding are escaped; spaces
    of any width are kept.

    >>> printable("a\x1b[2J\nb")
    'a\\x1b[2J\\nb'
    """
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def markdown(text: str) -> str:
    r"""Text for one line or table cell of a Markdown page, with its markup escaped.

    >>> markdown("a|b <img> `c`")
    'a\\|b &lt;img&gt; \\`c\\`'
    """
    return _MARKS.sub(_escaped, printable(text).strip())


def latex(text: str) -> str:
    r"""Text for one line or table cell of a LaTeX document, with its markup escaped.

    >>> latex("50 % of a_b, ± 1")
    '50 \\% of a\\_b, $\\pm$ 1'
    """
    return "".join(_LATEX.get(letter, letter) for letter in printable(text).strip())


def spreadsheet_cell(text: str) -> str:
    """A text cell that no spreadsheet reads as a formula: an apostrophe precedes one that looks like one.

    Numbers are unchanged.

    >>> spreadsheet_cell("=1+1"), spreadsheet_cell("resnet50"), spreadsheet_cell("-1")
    ("'=1+1", 'resnet50', '-1')
    """
    return f"'{text}" if _is_formula(text) else text


def spreadsheet_path(text: str) -> str:
    """A relative path that no spreadsheet reads as a formula; it still names its file.

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
    """A value for a message: its text if that is short, or else its type."""
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
