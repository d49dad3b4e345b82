"""The contract tests of attacks and defenses, for the authors of plug-ins.

:func:`check_attack` and :func:`check_defense` check all rules and raise an ``AssertionError`` that names the
first broken rule. :class:`AttackContract` and :class:`DefenseContract` are the same rules as pytest tests;
only these two need pytest. robust-tin checks its own attacks and defenses with the same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_tin.lazy import lazy_names

if TYPE_CHECKING:
    from robustbench_tin.testing.checks import check_attack, check_defense
    from robustbench_tin.testing.contracts import AttackContract, DefenseContract
    from robustbench_tin.testing.toy import Toy, build_toy_model, draw_toy_images, toy_problem

__all__ = [
    "AttackContract",
    "DefenseContract",
    "Toy",
    "build_toy_model",
    "check_attack",
    "check_defense",
    "draw_toy_images",
    "toy_problem",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    __all__,
    {
        "robustbench_tin.testing.checks": ["check_attack", "check_defense"],
        "robustbench_tin.testing.contracts": ["AttackContract", "DefenseContract"],
        "robustbench_tin.testing.toy": ["Toy", "build_toy_model", "draw_toy_images", "toy_problem"],
    },
)
