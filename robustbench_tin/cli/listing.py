"""What is registered, for people: names, one line each, and where each came from."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from robustbench_tin.errors import FOREIGN, RobustTinError, one_line
from robustbench_tin.registry import Entry, Registry

_BRIDGES = {
    "art": "any evasion attack on image classifiers of the Adversarial Robustness Toolbox",
    "foolbox": "any attack of foolbox, where it is installed",
    "torchattacks": "any attack of torchattacks, where it is installed",
}


@dataclass(frozen=True)
class Row:
    """One registered name."""

    name: str
    summary: str
    origin: str


def describe(what: str) -> list[Row]:
    """All entries of one registry: ``models``, ``attacks``, ``defenses`` or ``datasets``.

    The summary is a backbone's own, otherwise the first line of the docstring with the settings and
    their defaults behind it.
    """
    registry = _registry(what)
    rows = [Row(entry.name, _described(entry), entry.origin) for entry in registry.entries()]
    if what == "models":
        rows.append(Row("timm:NAME", "any network that timm has by that name", "built-in"))
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
    """An entry's summary, or why it has none: a broken plug-in hides no other entry."""
    try:
        return _summary(entry.load())
    except FOREIGN as error:
        return f"cannot be used: {error if isinstance(error, RobustTinError) else one_line(error)}"


def _summary(value: Any) -> str:
    if hasattr(value, "summary"):
        return str(value.summary)
    line = (inspect.getdoc(value) or "no description").splitlines()[0]
    line = re.sub(r"(:\w+:)?`+([^`]+)`+", r"\2", line)  # the markup of docstrings
    settings = getattr(value, "describe_settings", lambda: "")()
    return f"{line} [{settings}]" if settings else line
