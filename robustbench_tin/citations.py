"""The paper that a class's docstring cites."""

from __future__ import annotations

import re

# The form of citations in docstrings: Croce and Hein, 2020, "Title", arXiv 2003.01690. A name may have "de".
_NAME = r"(?:(?:de|van|der|El) )*[A-Z][\w’'-]+"
_PAPER = re.compile(
    rf"(?P<authors>{_NAME}(?:(?:, | and ){_NAME})*), (?P<year>\d{{4}}), \"[^\"]+\""
    r"(?:, (?:arXiv (?P<arxiv>\d{4}\.\d{4,5})|(?P<venue>[A-Z]\w+)))?"
)
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def paper_of(value: object) -> str:
    """The first paper that a class or one of its bases cites: ``Madry et al., 2018, arXiv:1706.06083``.

    The text is empty if no class cites one.
    """
    for base in getattr(value, "__mro__", ()):
        cited = citation(base.__dict__.get("__doc__") or "")
        if cited:
            return cited
    return ""


def citation(text: str) -> str:
    """The first paper that a text cites, in short form; empty if it cites none.

    >>> citation('The attack of Croce and Hein, 2020, "Minimally distorted Examples", arXiv 1907.02044.')
    'Croce and Hein, 2020, arXiv:1907.02044'
    """
    text = " ".join(text.split())
    found = _PAPER.search(text)
    if found is None:
        number = _ARXIV.search(text)
        return f"arXiv:{number[1]}" if number else ""
    first, *others = re.split(r", | and ", found["authors"])
    who = f"{first} et al." if len(others) > 1 else " and ".join([first, *others])
    where = f"arXiv:{found['arxiv']}" if found["arxiv"] else found["venue"]
    return ", ".join(filter(None, (who, found["year"], where)))
