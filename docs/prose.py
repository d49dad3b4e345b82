"""Docstrings and help texts as cells of Markdown tables."""

from __future__ import annotations

import re

from robustbench_tin.text import markdown

_MARKUP = re.compile(r"(?::\w+:)?`+~?([^`]+?)`+")


def cell(text: str) -> str:
    """A text with its code in code spans, all else escaped, and a capital at its start.

    >>> cell("``linf`` or ``l2``; a*b")
    '`linf` or `l2`; a\\\\*b'
    """
    parts = _MARKUP.split(" ".join(text.split()))
    joined = "".join(f"`{part}`" if index % 2 else _escaped(part) for index, part in enumerate(parts)).strip()
    return joined[:1].upper() + joined[1:]


def _escaped(text: str) -> str:
    """The text for a table's cell, with the spaces at its ends."""
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"{before}{markdown(text.strip())}{after}" if text.strip() else text
