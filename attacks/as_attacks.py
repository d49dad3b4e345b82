"""The requested attacks, as specs or as objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.base import Attack
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.specs import split_list
from robustbench_tin.text import brief

Attacks = str | Attack | Sequence[str | Attack]


def as_attacks(attacks: Attacks, *, needed: bool = True) -> list[Attack]:
    """The requested attacks: specs separated by commas, or a sequence of specs or attacks.

    Args:
        attacks: as in :func:`robustbench_tin.evaluate`.
        needed: True if there must be at least one.

    Raises:
        RobustTinError: if a value is not an attack, or the list is empty although one is needed.
    """
    if isinstance(attacks, str):
        listed: list[object] = list(split_list(attacks))
    elif isinstance(attacks, Sequence):
        listed = list(attacks)
    else:
        listed = [attacks]
    for each in listed:
        if not isinstance(each, str | Attack):
            raise InvalidSettingError(
                f"attacks got {brief(each)}; expected specs, such as ['fgsm', 'pgd:steps=20']"
            )
    if needed and not listed:
        raise InvalidSettingError("attacks got an empty list; expected at least one, such as 'fgsm'")
    return [each if isinstance(each, Attack) else parse_attack(str(each)) for each in listed]


def given_twice(attacks: Iterable[Attack]) -> dict[Attack, str]:
    """A remark for each attack that is listed more than once, in one spelling or in several."""
    return {
        attack: f"{attack.spec} is listed {count} times and measured once"
        for attack, count in Counter(attacks).items()
        if count > 1
    }
