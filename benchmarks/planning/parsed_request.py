"""Parse the attacks, defenses and backbones that a caller names; objects are accepted as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.as_attacks import given_twice
from robustbench_tin.attacks.base import Attack
from robustbench_tin.benchmarks.planning.config import Attacks, BenchConfig, Defenses, Names
from robustbench_tin.defenses import parse_defense
from robustbench_tin.defenses.base import Defense
from robustbench_tin.errors import InvalidSettingError, RobustTinError
from robustbench_tin.models import backbones, select
from robustbench_tin.models.backbone import Backbone
from robustbench_tin.progress import Reporter
from robustbench_tin.specs import Configurable, parse_spec, split_list
from robustbench_tin.text import brief
from robustbench_tin.threat import parse_eps_list

C = TypeVar("C", bound=Configurable)


@dataclass(frozen=True)
class Requested:
    """The parsed names of a request, without duplicates, in the user's order.

    Attributes:
        backbones: backbones with their settings.
        defenses: defenses and combinations of them.
        attacks: attacks with their settings.
        eps: budgets in units of the pixel range, ascending.
        seeds: seeds of the cells.
    """

    backbones: tuple[Backbone, ...]
    defenses: tuple[Defense, ...]
    attacks: tuple[Attack, ...]
    eps: tuple[float, ...]
    seeds: tuple[int, ...]

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the backbones."""
        return tuple(backbone.name for backbone in self.backbones)

    @property
    def defense_specs(self) -> tuple[str, ...]:
        """Canonical specs of the defenses."""
        return tuple(defense.spec for defense in self.defenses)

    @property
    def attack_specs(self) -> tuple[str, ...]:
        """Canonical specs of the attacks."""
        return tuple(attack.spec for attack in self.attacks)

    @property
    def certified(self) -> tuple[str, ...]:
        """Canonical specs of the defenses that certify."""
        return tuple(defense.spec for defense in self.defenses if defense.certifies)


def requested(request: BenchConfig, reporter: Reporter) -> Requested:
    """Parse the names of a request.

    Args:
        request: the user's options.
        reporter: shows a note for each attack that is asked for twice.

    Raises:
        RobustTinError: for an invalid name, setting or number.
    """
    changed = {"cut": request.cut, "interpolation": request.interpolation}
    models = requested_backbones(
        request.models, {key: str(value) for key, value in changed.items() if value is not None}
    )
    defenses = requested_defenses(request.defenses)
    attacks = requested_attacks(request.attacks)
    for remark in given_twice(attacks).values():
        reporter.say(remark)
    return Requested(
        tuple(models),
        _unique(defenses),
        _unique(attacks),
        tuple(sorted(set(parse_eps_list(request.eps, request.norm)))),
        _seeds(request.seeds),
    )


def requested_attack(given: str | Attack) -> Attack:
    """The single attack of a spec, or the given object itself.

    Raises:
        RobustTinError: for a spec that names no attack, and for an object that is not a registered attack.
    """
    return _requested("attack", given, Attack, parse_attack)  # type: ignore[type-abstract]


def requested_attacks(given: Attacks) -> list[Attack]:
    """The attacks of a text of specs, or of a sequence of specs and objects.

    Raises:
        RobustTinError: as :func:`requested_attack` does, and for an empty list.
    """
    listed = _listed("attacks", given)
    return [_requested("attacks", each, Attack, parse_attack) for each in listed]  # type: ignore[type-abstract]


def requested_defenses(given: Defenses) -> list[Defense]:
    """The defenses of specs separated by commas, or of a sequence of specs and objects.

    Raises:
        RobustTinError: for a spec or object that is not a registered defense, and for an empty list.
    """
    return [_requested("defenses", each, Defense, parse_defense) for each in _listed("defenses", given)]


def requested_backbones(names: Names, changed: Mapping[str, str]) -> list[Backbone]:
    """The backbones of names and patterns, without duplicates; a name's own settings override ``changed``.

    Raises:
        RobustTinError: for a name that matches nothing, or a setting that does not fit.
    """
    found = [
        _with_settings(name, changed) for name in select(names if isinstance(names, str) else ",".join(names))
    ]
    return list({backbone.name: backbone for backbone in found}.values())


def _with_settings(name: str, changed: Mapping[str, str]) -> Backbone:
    if not changed:
        return backbones.get(name)
    spec = parse_spec(name, backbones.prefixes)
    return backbones.get(backbones.get(spec.name).with_settings({**changed, **spec.settings}).name)


def _listed(what: str, given: object) -> list[object]:
    listed: list[object]
    if isinstance(given, str):
        listed = list(split_list(given))
    else:
        listed = list(given) if isinstance(given, Sequence) else [given]
    if not listed:
        raise InvalidSettingError(f"{what} got an empty list; expected at least one name")
    return listed


def _requested(what: str, given: object, kind: type[C], parse: Callable[[str], C]) -> C:
    if isinstance(given, str):
        return parse(given)
    if not isinstance(given, kind):
        raise InvalidSettingError(f"{what} got {brief(given)}; expected specs or {kind.kind}s")
    if not _stands_for(given, parse):
        raise InvalidSettingError(
            f"{what} got {brief(given)}, which its spec '{given.spec}' does not reproduce; files store"
            f" only the spec, so register its class with robustbench_tin.{kind.kind}s.register"
        )
    return given


def _stands_for(given: C, parse: Callable[[str], C]) -> bool:
    """Whether parsing an object's spec returns an equal object."""
    try:
        return parse(given.spec) == given
    except RobustTinError:
        return False


def _unique(found: Sequence[C]) -> tuple[C, ...]:
    return tuple({each.spec: each for each in found}.values())


def _seeds(seeds: str | int | Sequence[int]) -> tuple[int, ...]:
    items = seeds.split(",") if isinstance(seeds, str) else [seeds] if isinstance(seeds, int) else list(seeds)
    try:
        numbers = tuple(dict.fromkeys(int(item) for item in items))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise InvalidSettingError(f"seeds got '{seeds}'; expected whole numbers from 0, such as 0,1,2")
    return numbers
