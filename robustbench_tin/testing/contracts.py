"""The contracts as pytest classes; pytest runs and reports each rule as a separate test."""

from __future__ import annotations

from typing import ClassVar

import pytest

from robustbench_tin.attacks import Attack, parse_attack
from robustbench_tin.defenses import Defense, parse_defense
from robustbench_tin.testing.attack_case import AttackCase
from robustbench_tin.testing.checks import attack_checks, hold_attack_rule, hold_defense_rule, subject
from robustbench_tin.testing.defense_case import DefenseCase
from robustbench_tin.testing.defense_rules import DEFENSE_RULES
from robustbench_tin.testing.rules import Rule

EVERY_ATTACK_RULE = pytest.mark.parametrize(
    ("rule", "norm"),
    [
        pytest.param(rule, norm, id=rule.name if norm is None else f"{rule.name}-{norm}")
        for rule, norm in attack_checks()
    ],
)
EVERY_DEFENSE_RULE = pytest.mark.parametrize(
    "rule", [pytest.param(rule, id=rule.name) for rule in DEFENSE_RULES]
)


class AttackContract:
    """The contract of all attacks, one test per rule; derive a test class and set :attr:`spec`.

    .. code-block:: python

        class TestMine(AttackContract):
            spec = "mine:steps=3"
    """

    spec: ClassVar[str | Attack]
    """The attack to check: its spec, or an object."""

    @EVERY_ATTACK_RULE
    def test_rule(self, rule: Rule[AttackCase], norm: str | None) -> None:
        """The attack keeps this rule."""
        __tracebackhide__ = True
        attack = parse_attack(self.spec) if isinstance(self.spec, str) else self.spec
        if norm is not None and norm not in attack.norms:
            pytest.skip(f"{subject(attack)} does not support {norm}")
        hold_attack_rule(rule, attack, norm)


class DefenseContract:
    """The contract of all defenses, one test per rule; derive a test class and set :attr:`spec`.

    .. code-block:: python

        class TestMine(DefenseContract):
            spec = "augment+mine:strength=0.1"
    """

    spec: ClassVar[str | Defense]
    """The defense to check: its spec, or an object."""

    @EVERY_DEFENSE_RULE
    def test_rule(self, rule: Rule[DefenseCase]) -> None:
        """The defense keeps this rule."""
        __tracebackhide__ = True
        defense = parse_defense(self.spec) if isinstance(self.spec, str) else self.spec
        hold_defense_rule(rule, defense)
