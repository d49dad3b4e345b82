"""Texts from data, in the places that show them."""

from __future__ import annotations

import pytest

from robustbench_tin.text import markdown, printable, spreadsheet_cell, spreadsheet_path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("resnet50 + none, ▼ 0.5 é 日本", "resnet50 + none, ▼ 0.5 é 日本"),
        ("a\x1b]0;owned\x07\x1b[2J", "a\\x1b]0;owned\\x07\\x1b[2J"),
        ("one\ntwo\r\u2028three", "one\\ntwo\\r\\u2028three"),
        ("\u202eevil", "\\u202eevil"),
        ("undecodable \udcff", "undecodable \\udcff"),
        ("wide\u3000space", "wide\u3000space"),
    ],
)
def test_printable_escapes_what_moves_the_cursor_or_breaks_the_line(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b\n| fake |", "a\\|b\\\\n\\| fake \\|"),
        ("<img src=x>&lt;", "&lt;img src=x&gt;&amp;lt;"),
        ("`code` *bold* [a](b)", "\\`code\\` \\*bold\\* \\[a\\](b)"),
        ("# heading", "\\# heading"),
        ("label_smoothing _em_", "label_smoothing \\_em\\_"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text: str, shown: str) -> None:
    assert markdown(text) == shown


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-a", "@SUM(A1)", "\t=1"])
def test_no_spreadsheet_takes_a_text_for_a_formula(text: str) -> None:
    assert spreadsheet_cell(text) == "'" + text
    assert spreadsheet_path(text) == "./" + text
    assert spreadsheet_cell("a" + text) == "a" + text


@pytest.mark.parametrize("text", ["-1", "+0.5", "-1e-3", ""])
def test_numbers_are_left_as_they_are(text: str) -> None:
    assert spreadsheet_cell(text) == text
