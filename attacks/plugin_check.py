"""Checks of a plug-in's attack when it registers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from robustbench_tin.attacks.base import Attack
from robustbench_tin.plugin_check import problems
from robustbench_tin.threat import NORMS


def problem_of(value: object) -> str | None:
    """The reason why ``value`` cannot be registered as an attack, in one clause; None if it can."""
    found = next(problems(value, Attack, "attacks.register"), None)
    if found is None and isinstance(value, type) and issubclass(value, Attack):
        found = next(_wrong_facts(value), None)
    return found


def _wrong_facts(attack: type[Attack]) -> Iterator[str]:
    """Class variables that :meth:`Attack.check` cannot use."""
    norms, lengths = attack.norms, attack.lengths
    if not (isinstance(norms, tuple) and norms and set(norms) <= set(NORMS)):
        yield f"class {attack.__name__} sets norms = {norms!r:.40}; expected a tuple of {' and '.join(NORMS)}"
    settings = {field.name for field in dataclasses.fields(attack)}
    if not (isinstance(lengths, tuple) and set(lengths) <= settings):
        yield f"class {attack.__name__} sets lengths = {lengths!r:.40}; expected some of its settings"
