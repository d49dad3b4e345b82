"""``robust-tin list`` and the other commands that look things up: one line for each registered name."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_tin.benchmarks.planning.config import CellConfig
from robustbench_tin.citations import paper_of
from robustbench_tin.cli.options_from_configs import as_option
from robustbench_tin.cli.panels import NAMES
from robustbench_tin.cli.process import Command
from robustbench_tin.errors import FOREIGN, InvalidSettingError, RobustTinError, UnknownNameError, one_line
from robustbench_tin.options import either
from robustbench_tin.registry import Entry, Registry
from robustbench_tin.streams import make_console
from robustbench_tin.text import printable

_BRIDGES = {
    "art": "any evasion attack on image classifiers from the Adversarial Robustness Toolbox",
    "foolbox": "any attack of foolbox, if it is installed",
    "torchattacks": "any attack of torchattacks, if it is installed",
}


KINDS = ("models", "attacks", "defenses", "datasets")


def add_commands(app: typer.Typer) -> None:
    """Register these commands."""
    app.command("list", rich_help_panel=NAMES, epilog="Example: robust-tin list attacks 'pgd*'")(list_)
    app.command(cls=Command, rich_help_panel=NAMES, epilog="Example: robust-tin presets quick > mine.toml")(
        presets
    )
    app.command(rich_help_panel=NAMES, epilog="Example: robust-tin schema > records.schema.json")(schema)


def presets(
    name: Annotated[
        str | None, typer.Argument(help="Preset whose file is printed, for you to copy and edit.")
    ] = None,
) -> None:
    """List the presets of bench, or print one."""
    from robustbench_tin.presets import load_preset, preset_names

    if name is not None:
        print(load_preset(name).text, end="")
        return
    for known in preset_names():
        print(f"{known:14}{load_preset(known).summary}")


def schema() -> None:
    """Print the JSON Schema of records: of show --format json and of results.json."""
    from robustbench_tin.benchmarks.runs.record_schema import schema_text

    print(schema_text(), end="")


def list_(
    what: Annotated[str, typer.Argument(metavar="KIND", help=f"Kind to list: {', '.join(KINDS)}.")],
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Only this name, or the names that match a pattern: 'pgd*'."),
    ] = None,
    plugin: Annotated[list[Path] | None, as_option(CellConfig, "plugins")] = None,
) -> None:
    """List backbones, attacks, defenses or data sets, each with its settings, paper and origin."""
    from rich.table import Table

    from robustbench_tin.registry import load_plugin

    for path in plugin or ():
        load_plugin(path)
    kind = kind_of(what)
    rows = matching(describe(kind), pattern, kind)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    with_paper = any(row.paper for row in rows)
    for column in ("name", "description", *(["paper"] if with_paper else []), "from"):
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        paper = [row.paper] if with_paper else []
        table.add_row(*map(printable, (row.name, row.summary, *paper, row.origin)))
    make_console().print(table)


def kind_of(text: str) -> str:
    """One of :data:`KINDS`; the singular and "backbones" are accepted too.

    Raises:
        InvalidSettingError: for any other text.
    """
    plural = text.lower() if text.lower().endswith("s") else f"{text.lower()}s"
    kind = "models" if plural == "backbones" else plural
    if kind not in KINDS:
        raise InvalidSettingError(f"list got '{text}'; expected {either(KINDS)}")
    return kind


@dataclass(frozen=True)
class Row:
    """One registered name."""

    name: str
    summary: str
    origin: str
    paper: str = ""


def matching(rows: list[Row], pattern: str | None, kind: str) -> list[Row]:
    """The rows whose names match a pattern; None matches all.

    Raises:
        UnknownNameError: if no name matches; it lists the close names.
    """
    found = [row for row in rows if pattern is None or fnmatchcase(row.name, pattern)]
    if not found and pattern is not None:
        raise UnknownNameError(kind.removesuffix("s"), pattern, [row.name for row in rows])
    return found


def describe(what: str) -> list[Row]:
    """All entries of one registry: ``models``, ``attacks``, ``defenses`` or ``datasets``.

    The summary is a backbone's own; for the others, it is the first line of the docstring, followed by the
    settings and their defaults.
    """
    registry = _registry(what)
    rows = [Row(entry.name, _described(entry), entry.origin, _paper(entry)) for entry in registry.entries()]
    if what == "models":
        rows.append(Row("timm:NAME", "any network of timm by its name there", "built-in"))
    if what == "attacks":
        rows += [Row(f"{prefix}:CLASS", summary, "built-in") for prefix, summary in _BRIDGES.items()]
    return rows


def _registry(what: str) -> Registry[Any]:
    if what == "models":
        from robustbench_tin.models import backbones

        return backbones
    if what == "datasets":
        from robustbench_tin.data import datasets

        return datasets
    if what == "attacks":
        from robustbench_tin import attacks

        return attacks.registry
    from robustbench_tin import defenses

    return defenses.registry


def _described(entry: Entry[Any]) -> str:
    """An entry's summary, or the reason why it cannot be used: a broken plug-in hides no other entry."""
    try:
        return _summary(entry.load())
    except FOREIGN as error:
        return f"cannot be used: {error if isinstance(error, RobustTinError) else one_line(error)}"


def _paper(entry: Entry[Any]) -> str:
    try:
        return paper_of(entry.load())
    except FOREIGN:  # the summary reports that it cannot be used
        return ""


def _summary(value: Any) -> str:
    if hasattr(value, "summary"):
        return str(value.summary)
    line = (inspect.getdoc(value) or "no description").splitlines()[0]
    line = re.sub(r"(:\w+:)?`+([^`]+)`+", r"\2", line)  # the markup of docstrings
    settings = getattr(value, "describe_settings", lambda: "")()
    return f"{line} [{settings}]" if settings else line
