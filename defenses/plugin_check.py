"""Checks of a plug-in's defense when it registers."""

from __future__ import annotations

from robustbench_tin.defenses.base import Defense
from robustbench_tin.plugin_check import problems, written_by_author


def problem_of(value: object) -> str | None:
    """The reason why ``value`` cannot be registered as a defense, in one clause; None if it can."""
    found = next(problems(value, Defense, "defenses.register"), None)
    if found is None and isinstance(value, type) and issubclass(value, Defense):
        found = _unused_loss(value)
    return found


def _unused_loss(defense: type[Defense]) -> str | None:
    """Training uses the objective; a loss next to an own objective would never be used."""
    classes = written_by_author(defense, Defense)
    loss, objective = (
        next((part for part in classes if hook in vars(part)), None) for hook in ("loss", "objective")
    )
    if loss is None or objective is None or loss.__module__.startswith("robustbench_tin."):
        return None
    if classes.index(loss) > classes.index(objective):
        return None
    return (
        f"class {loss.__name__} defines loss, but training uses {objective.__name__}.objective instead;"
        " expected one of them (start the name of a helper with an underscore)"
    )
