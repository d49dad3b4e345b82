"""The reference page of commands, made from the command line itself: ``make pages`` writes it."""

from __future__ import annotations

import re
from typing import Any

from typer.main import get_command

from robustbench_tin.cli.app import app
from robustbench_tin.text import markdown

_HEAD = """# Commands

`make pages` makes this page from the command line itself. `robust-tin COMMAND --help` prints the same.

Exit codes: 0 if all is done; 1 if `check` finds something worse; 2 for a mistake, a failed measurement, or output
that could not be written, reported in one line on the error stream; 75 after `--max-hours`; 130 after Ctrl-C.

| command | purpose |
|---|---|
"""
_EXAMPLE = re.compile(r"robust-tin [^;\n]*[^;\n. ]")
"""An example in the text below a command's help."""
_LISTED = ("bench", "evaluate")
"""Commands whose options have a page of their own."""


def page() -> str:
    """The whole page."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    rows = [f"| [`{name}`](#robust-tin-{name}) | {_purpose(each)} |" for name, each in commands.items()]
    return _HEAD + "\n".join(rows) + "\n" + "".join(_section(name, each) for name, each in commands.items())


def _purpose(command: Any) -> str:
    return markdown(" ".join((command.help or "").split("\n\n")[0].split()))


def _section(name: str, command: Any) -> str:
    lines = ["", f"## robust-tin {name}", "", _purpose(command)]
    if command.epilog:
        lines += ["", "```sh", *_EXAMPLE.findall(command.epilog), "```"]
    if name in _LISTED:
        return "\n".join([*lines, "", f"[Its options](options.md#robust-tin-{name}).", ""])
    params = [each for each in command.params if not getattr(each, "hidden", False)]
    return "\n".join(
        [*lines, "", "| argument or option | default | sets |", "|---|---|---|", *map(_row, params), ""]
    )


def _row(param: Any) -> str:
    words = ", ".join(f"`{each}`" for each in (*param.opts, *param.secondary_opts))
    if param.param_type_name == "argument":
        words = f"`{param.metavar or param.name.upper()}`"
    text = " ".join((getattr(param, "help", None) or "").split())
    return f"| {words} | {_default(param)} | {markdown(text)} |"


def _default(param: Any) -> str:
    shown = getattr(param, "show_default", None)
    if isinstance(shown, str):
        return markdown(shown)
    if param.required:
        return "required"
    value = param.default
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value in (None, (), []) or callable(value) else f"`{value}`"
