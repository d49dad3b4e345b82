"""All rules of a contract, applied to one plug-in."""

from __future__ import annotations

from collections.abc import Iterator

from robustbench_tin.attacks import Attack, parse_attack
from robustbench_tin.attacks.plugin_check import problem_of as problem_of_attack
from robustbench_tin.defenses import Defense, parse_defense
from robustbench_tin.defenses.plugin_check import problem_of as problem_of_defense
from robustbench_tin.testing.attack_case import AttackCase
from robustbench_tin.testing.attack_rules import ATTACK_RULES
from robustbench_tin.testing.defense_case import DefenseCase
from robustbench_tin.testing.defense_rules import DEFENSE_RULES
from robustbench_tin.testing.rules import Rule, is_registered
from robustbench_tin.threat import NORMS


def check_attack(attack: str | Attack) -> None:
    """Check that an attack satisfies the contract of all attacks, on a network of 4,000 weights.

    It takes seconds for an attack of ten steps; give a spec with fewer steps if yours takes longer.

    Args:
        attack: a spec, ``my-attack:steps=3``, or an attack object, which need not be registered.

    Raises:
        AssertionError: for the first broken rule: the attack, the rule, the value found and the one expected,
            in one line.
        RobustTinError: if the spec is invalid.

    >>> check_attack("fgsm")
    """
    __tracebackhide__ = True
    if isinstance(attack, str):
        attack = parse_attack(attack)
    elif (problem := problem_of_attack(type(attack))) is not None:
        raise AssertionError(f"{subject(attack)} must be a valid class: {problem}")
    for rule, norm in attack_checks():
        if norm is None or norm in attack.norms:
            hold_attack_rule(rule, attack, norm)


def check_defense(defense: str | Defense) -> None:
    """Check that a defense satisfies the contract of all defenses, on a network of 4,000 weights.

    Args:
        defense: a spec, ``my-defense:strength=0.1`` or a combination ``augment+my-defense``; or a defense
            object, which need not be registered.

    Raises:
        AssertionError: for the first broken rule: the defense, the rule, the value found and the one
            expected, in one line.
        RobustTinError: if the spec is invalid.

    >>> check_defense("mixup")
    """
    __tracebackhide__ = True
    if isinstance(defense, str):
        defense = parse_defense(defense)
    elif (problem := problem_of_defense(type(defense))) is not None:
        raise AssertionError(f"{subject(defense)} must be a valid class: {problem}")
    for rule in DEFENSE_RULES:
        hold_defense_rule(rule, defense)


def attack_checks() -> Iterator[tuple[Rule[AttackCase], str | None]]:
    """Every rule of attacks with each norm that it is checked in; None for any norm of the attack."""
    for rule in ATTACK_RULES:
        for norm in NORMS if rule.each_norm else (None,):
            yield rule, norm


def hold_attack_rule(rule: Rule[AttackCase], attack: Attack, norm: str | None) -> None:
    """Check one rule in one norm; see :meth:`~robustbench_tin.testing.rules.Rule.hold`."""
    __tracebackhide__ = True
    where = subject(attack) if norm is None else f"{subject(attack)} in {norm}"
    rule.hold(AttackCase(attack, norm or attack.norms[0]), where)


def hold_defense_rule(rule: Rule[DefenseCase], defense: Defense) -> None:
    """Check one rule; see :meth:`~robustbench_tin.testing.rules.Rule.hold`."""
    __tracebackhide__ = True
    rule.hold(DefenseCase(defense), subject(defense))


def subject(plug_in: Attack | Defense) -> str:
    """An attack or a defense, for a message."""
    return f"{plug_in.kind} '{plug_in.spec if is_registered(plug_in) else type(plug_in).__name__}'"
