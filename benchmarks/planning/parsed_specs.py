"""Attacks, defenses and backbones by spec, each parsed once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from robustbench_tin.attacks import parse_attack
from robustbench_tin.defenses import parse_defense
from robustbench_tin.models import backbones

if TYPE_CHECKING:
    from robustbench_tin.attacks.base import Attack
    from robustbench_tin.defenses.base import Defense
    from robustbench_tin.models.backbone import Backbone

T = TypeVar("T")


class _WithSpec(Protocol):
    @property
    def spec(self) -> str: ...


S = TypeVar("S", bound=_WithSpec)


@dataclass(frozen=True)
class ParsedSpecs:
    """Attacks, defenses and backbones by canonical spec, each parsed on first use.

    Nothing is imported before that. Specs contain every fact, so any two of these objects are equal, and
    a copied or pickled one starts empty.
    """

    _attacks: dict[str, Attack] = field(default_factory=dict, compare=False, repr=False)
    _defenses: dict[str, Defense] = field(default_factory=dict, compare=False, repr=False)
    _backbones: dict[str, Backbone] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls, attacks: Iterable[Attack], defenses: Iterable[Defense], backbones: Iterable[Backbone]
    ) -> ParsedSpecs:
        """A collection of objects that are already parsed."""
        named = {backbone.name: backbone for backbone in backbones}
        return cls(_by_spec(attacks), _by_spec(defenses), named)

    def take(self, others: ParsedSpecs) -> None:
        """Add the objects that another collection has parsed."""
        self._attacks.update(others._attacks)
        self._defenses.update(others._defenses)
        self._backbones.update(others._backbones)

    def attack(self, spec: str) -> Attack:
        """The attack of a spec; every caller gets the same frozen object.

        Raises:
            RobustTinError: for an unknown name or setting, or a value that does not fit.
        """
        return _found(self._attacks, spec, parse_attack)

    def defense(self, spec: str) -> Defense:
        """The defense of a spec; every caller gets a copy, because hooks may keep state while a cell trains.

        Raises:
            RobustTinError: for an unknown name or setting, or a value that does not fit.
        """
        return copy.deepcopy(_found(self._defenses, spec, parse_defense))

    def backbone(self, name: str) -> Backbone:
        """The backbone of a name or spec.

        Raises:
            RobustTinError: for an unknown name or setting, or a value that does not fit.
        """
        return _found(self._backbones, name, backbones.get)

    def __reduce__(self) -> tuple[type[ParsedSpecs], tuple[()]]:
        return ParsedSpecs, ()


def _by_spec(objects: Iterable[S]) -> dict[str, S]:
    return {each.spec: each for each in objects}


def _found(known: dict[str, T], spec: str, parse: Callable[[str], T]) -> T:
    if spec not in known:
        known[spec] = parse(spec)
    return known[spec]
